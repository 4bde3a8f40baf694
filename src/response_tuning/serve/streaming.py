"""A reply as it is generated: the part of its text that can no longer change."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from response_tuning.artifacts import Sampling, cut
from response_tuning.models.local import ContinueBatch, Draft, Ending, LocalModel

if TYPE_CHECKING:
    import torch


Write = Callable[[str], None]
"""Shows a piece of text, such as a part of a line."""


def stream_reply(
    local: LocalModel,
    draft: Draft,
    write: Write,
    sampling: Sampling,
    continue_batch: ContinueBatch = lambda rows, width: True,
) -> Ending | None:
    """Extend ``draft`` to its end, and write its text piece by piece.

    What the draft holds already is written first. Returns None if ``continue_batch`` ended it
    early; then everything is written, an unfinished character or stop string too.
    """
    typewriter = _Typewriter(local, draft, write, local.stops(sampling))
    typewriter.show()
    # Tokens that the user chose, such as the stop token, may have ended it already.
    if not (draft.generated and local.has_ended(draft, local.stops(sampling))):
        local.extend([draft], sampling, typewriter, continue_batch)
    reply = local.ending(draft, sampling)
    whole = reply.text if reply else local.text(draft.prompt, draft.generated)
    write(whole[typewriter.shown :])
    return reply


class _Typewriter:
    """A streamer for ``transformers`` that shows the part of a reply that can no longer change.

    transformers' own streamer holds back the last word, decodes each line alone (which strips its
    first space with SentencePiece tokenizers), and ignores stop strings.
    """

    def __init__(self, local: LocalModel, draft: Draft, write: Write, stop: Sequence[str]) -> None:
        self._local = local
        self._prompt = draft.prompt
        self._write = write
        self._stop = stop
        self._generated = list(draft.generated)
        self._begun = False
        """Whether ``transformers`` has sent the prompt."""
        self.shown = 0
        """Characters shown so far."""

    def put(self, tokens: "torch.Tensor") -> None:
        """Receive the prompt first, then one new token at a time."""
        if not self._begun:
            self._begun = True
            return
        self._generated += tokens.tolist()
        self.show()

    def show(self) -> None:
        """Write what has settled since the last time."""
        text = self._local.text(self._prompt, self._generated)
        kept = cut(text, self._stop)
        settled = _settled(text, self._stop) if kept is None else kept
        if len(settled) > self.shown:
            self._write(settled[self.shown :])
            self.shown = len(settled)

    def end(self) -> None:
        """Do nothing: ``stream_reply`` shows the rest."""


def _settled(text: str, stop: Sequence[str]) -> str:
    """Return ``text`` without an unfinished character, or the beginning of a stop string."""
    text = text.rstrip("\N{REPLACEMENT CHARACTER}")  # how half a character is decoded
    starts = {string[:length] for string in stop for length in range(1, len(string))}
    unsettled = max((len(start) for start in starts if text.endswith(start)), default=0)
    return text[: len(text) - unsettled]
