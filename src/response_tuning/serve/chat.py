"""A conversation with a model in the console."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from response_tuning.artifacts import Message, Sampling, cut
from response_tuning.models.inference import load
from response_tuning.models.local import Draft, Ending, LocalModel, PromptError
from response_tuning.terminal import printable

if TYPE_CHECKING:
    import torch


HELP = "Type 'clear' to forget the conversation, 'exit' to leave.\n"


def run_chat(model: str, template: str | None, sampling: Sampling) -> None:
    """Talk with ``model`` on standard input and output until ``exit``, Ctrl-D or Ctrl-C.

    Raises:
        ModelError: the model cannot be loaded.
        TemplateError: it has no chat template, or one that cannot render a conversation.
    """
    local = load(model, template)
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        _say(HELP)
    try:
        chat(local, _typed() if at_terminal else sys.stdin, _say, sampling)
    except KeyboardInterrupt:
        _say("\n")


def chat(
    local: LocalModel, lines: Iterable[str], say: Callable[[str], None], sampling: Sampling
) -> None:
    """Answer each of ``lines`` in the light of those before; what is said goes to ``say``."""
    turns: list[Message] = []
    for line in lines:
        words = line.strip()
        if words == "exit":
            return
        if words == "clear":
            turns.clear()
            say("[the conversation is forgotten]\n")
        elif not _is_unicode(words):
            say("[that is not UTF-8, so the model cannot read it]\n")
        elif words:
            turns += _exchange(local, turns, words, say, sampling)


def _exchange(
    local: LocalModel,
    turns: Sequence[Message],
    words: str,
    say: Callable[[str], None],
    sampling: Sampling,
) -> list[Message]:
    """Return the question and its reply; neither, if they do not fit into the context."""
    question = Message(role="user", content=words)
    try:
        draft = local.draft([*turns, question], sampling)
    except PromptError as error:
        say(f"[{error}; type 'clear' to forget the conversation]\n")
        return []
    reply = _stream(local, draft, say, sampling)
    say("\n")
    if reply.finish_reason == "length":
        full = draft.limit < sampling.max_new_tokens
        why = (
            "the context is full; type 'clear' to forget the conversation" if full else "the limit"
        )
        say(f"[cut after {draft.limit} tokens: {why}]\n")
    return [question, Message(role="assistant", content=reply.text)]


def _stream(
    local: LocalModel, draft: Draft, say: Callable[[str], None], sampling: Sampling
) -> Ending:
    typewriter = _Typewriter(local, draft.prompt, say, local.stops(sampling))
    local.extend([draft], sampling, typewriter)
    reply = local.ending(draft, sampling)
    assert reply is not None  # a single draft is extended up to its end
    say(reply.text[typewriter.shown :])
    return reply


class _Typewriter:
    """A streamer for ``transformers`` that shows a reply as far as it is settled.

    That of transformers holds back the last word, decodes each line alone (which strips its
    first space with SentencePiece tokenizers), and knows no stop strings.
    """

    def __init__(
        self,
        local: LocalModel,
        prompt: Sequence[int],
        say: Callable[[str], None],
        stop: Sequence[str],
    ) -> None:
        self._local = local
        self._prompt = prompt
        self._say = say
        self._stop = stop
        self._said: list[int] | None = None
        self.shown = 0
        """Characters shown so far."""

    def put(self, tokens: "torch.Tensor") -> None:
        """Take the prompt first, then one new token at a time."""
        if self._said is None:
            self._said = []
            return
        self._said += tokens.tolist()
        text = self._local.text(self._prompt, self._said)
        kept = cut(text, self._stop)
        settled = _settled(text, self._stop) if kept is None else kept
        if len(settled) > self.shown:
            self._say(settled[self.shown :])
            self.shown = len(settled)

    def end(self) -> None:
        """Nothing: the caller shows what was held back."""


def _settled(text: str, stop: Sequence[str]) -> str:
    """Return ``text`` without an unfinished character, or what may become a stop string."""
    text = text.rstrip("\N{REPLACEMENT CHARACTER}")
    starts = {string[:length] for string in stop for length in range(1, len(string))}
    held = max((len(start) for start in starts if text.endswith(start)), default=0)
    return text[: len(text) - held]


def _is_unicode(words: str) -> bool:
    """Whether a line was read whole: bytes that are no UTF-8 are kept as halves of pairs."""
    try:
        words.encode()
    except UnicodeEncodeError:
        return False
    return True


def _typed() -> Iterator[str]:
    while True:
        try:
            yield input("> ")
        except EOFError:
            _say("\n")
            return


def _say(text: str) -> None:
    sys.stdout.write(printable(text))  # what a model says may steer a terminal
    sys.stdout.flush()
