"""A conversation with a model in the console."""

from collections.abc import Iterable, Sequence

from response_tuning import terminal
from response_tuning.artifacts import Message, Sampling
from response_tuning.models.inference import load
from response_tuning.models.local import LocalModel, PromptError
from response_tuning.serve.streaming import Write, stream_reply

HELP = "Type 'clear' to forget the conversation, 'exit' to leave; Ctrl-C stops a reply.\n"


def run_chat(
    model: str,
    template: str | None,
    sampling: Sampling,
    lines: Iterable[str],
    *,
    explain: bool = False,
) -> None:
    """Chat with ``model`` about ``lines`` until ``exit``, their end or Ctrl-C.

    Replies go to standard output. With ``explain``, for a person at a terminal, the first line says
    how to leave, and Ctrl-C during a reply stops only that.

    Raises:
        ModelError: the model cannot be loaded.
        TemplateError: it has no chat template, or one that cannot render a conversation.
    """
    local = load(model, template)
    if explain:
        terminal.write(HELP)
    try:
        chat(local, lines, terminal.write, sampling, only_the_reply=explain)
    except KeyboardInterrupt:
        terminal.write("\n")


def chat(
    local: LocalModel,
    lines: Iterable[str],
    write: Write,
    sampling: Sampling,
    *,
    only_the_reply: bool = False,
) -> None:
    """Answer each of ``lines``, with the lines and replies before it as context.

    With ``only_the_reply``, Ctrl-C during a reply stops it, and both turns are forgotten.
    """
    turns: list[Message] = []
    for line in lines:
        text = line.strip()
        if text == "exit":
            return
        if text == "clear":
            turns.clear()
            write("[the conversation is forgotten]\n")
        elif not _is_unicode(text):
            write("[that is not UTF-8, so the model cannot read it]\n")
        elif text:
            try:
                turns += _exchange(local, turns, text, write, sampling)
            except KeyboardInterrupt:
                if not only_the_reply:
                    raise
                write("\n[stopped; this question and its reply are forgotten]\n")


def _exchange(
    local: LocalModel, turns: Sequence[Message], text: str, write: Write, sampling: Sampling
) -> list[Message]:
    """Answer one line, and return both turns; neither if they do not fit into the context."""
    question = Message(role="user", content=text)
    try:
        draft = local.draft([*turns, question], sampling)
    except PromptError as error:
        write(f"[{error}; type 'clear' to forget the conversation]\n")
        return []
    reply = stream_reply(local, draft, write, sampling)
    assert reply is not None  # a single draft is extended up to its end
    write("\n")
    if reply.finish_reason == "length":
        # The draft's limit is below the user's only where the context has no more room.
        full = draft.limit < sampling.max_new_tokens
        why = (
            "the context is full; type 'clear' to forget the conversation" if full else "the limit"
        )
        write(f"[it did not stop by itself; cut after {draft.limit:,} tokens: {why}]\n")
    return [question, Message(role="assistant", content=reply.text)]


def _is_unicode(text: str) -> bool:
    """Whether a line is valid UTF-8; invalid bytes were read as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
