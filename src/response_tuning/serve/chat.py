"""A conversation with a model in the console."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from response_tuning import terminal
from response_tuning.artifacts import Message, Sampling, cut
from response_tuning.models.inference import load
from response_tuning.models.local import Draft, Ending, LocalModel, PromptError

if TYPE_CHECKING:
    import torch


HELP = "Type 'clear' to forget the conversation, 'exit' to leave.\n"

Write = Callable[[str], None]
"""Shows a piece of text, such as a part of a line."""


def run_chat(
    model: str,
    template: str | None,
    sampling: Sampling,
    lines: Iterable[str],
    *,
    explain: bool = False,
) -> None:
    """Chat with ``model`` about ``lines`` until ``exit``, their end or Ctrl-C.

    Replies go to standard output; ``explain`` prints first how to leave.

    Raises:
        ModelError: the model cannot be loaded.
        TemplateError: it has no chat template, or one that cannot render a conversation.
    """
    local = load(model, template)
    if explain:
        terminal.write(HELP)
    try:
        chat(local, lines, terminal.write, sampling)
    except KeyboardInterrupt:
        terminal.write("\n")


def chat(local: LocalModel, lines: Iterable[str], write: Write, sampling: Sampling) -> None:
    """Answer each of ``lines``, with the lines and replies before it as context."""
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
            turns += _exchange(local, turns, text, write, sampling)


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
    reply = _stream(local, draft, write, sampling)
    write("\n")
    if reply.finish_reason == "length":
        # The draft's limit is below the user's only where the context has no more room.
        full = draft.limit < sampling.max_new_tokens
        why = (
            "the context is full; type 'clear' to forget the conversation" if full else "the limit"
        )
        write(f"[cut after {draft.limit} tokens: {why}]\n")
    return [question, Message(role="assistant", content=reply.text)]


def _stream(local: LocalModel, draft: Draft, write: Write, sampling: Sampling) -> Ending:
    typewriter = _Typewriter(local, draft.prompt, write, local.stops(sampling))
    local.extend([draft], sampling, typewriter)
    reply = local.ending(draft, sampling)
    assert reply is not None  # a single draft is extended up to its end
    write(reply.text[typewriter.shown :])
    return reply


class _Typewriter:
    """A streamer for ``transformers`` that shows the part of a reply that can no longer change.

    transformers' own streamer holds back the last word, decodes each line alone (which strips its
    first space with SentencePiece tokenizers), and ignores stop strings.
    """

    def __init__(
        self, local: LocalModel, prompt: Sequence[int], write: Write, stop: Sequence[str]
    ) -> None:
        self._local = local
        self._prompt = prompt
        self._write = write
        self._stop = stop
        self._generated: list[int] | None = None
        """None before ``transformers`` has sent the prompt."""
        self.shown = 0
        """Characters shown so far."""

    def put(self, tokens: "torch.Tensor") -> None:
        """Receive the prompt first, then one new token at a time."""
        if self._generated is None:
            self._generated = []
            return
        self._generated += tokens.tolist()
        text = self._local.text(self._prompt, self._generated)
        kept = cut(text, self._stop)
        settled = _settled(text, self._stop) if kept is None else kept
        if len(settled) > self.shown:
            self._write(settled[self.shown :])
            self.shown = len(settled)

    def end(self) -> None:
        """Do nothing: ``_stream`` shows the rest."""


def _settled(text: str, stop: Sequence[str]) -> str:
    """Return ``text`` without an unfinished character, or the beginning of a stop string."""
    text = text.rstrip("\N{REPLACEMENT CHARACTER}")  # how half a character is decoded
    starts = {string[:length] for string in stop for length in range(1, len(string))}
    unsettled = max((len(start) for start in starts if text.endswith(start)), default=0)
    return text[: len(text) - unsettled]


def _is_unicode(text: str) -> bool:
    """Whether a line is valid UTF-8; invalid bytes were read as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
