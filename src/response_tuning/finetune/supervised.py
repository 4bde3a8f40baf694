"""Text that carries loss becomes ids that spell it; problems drop the row or add a remark.

A tokenizer that lacks a character leaves it out or uses its unknown token: the row is dropped. A
tokenizer that normalizes text (NFC, lower case, single spaces) does so in training and in serving
alike: the row gets a remark.
"""

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

from tokenizers import Tokenizer
from tokenizers.normalizers import Normalizer

from response_tuning.templates import Chat

NORMALISED = "are learned in the tokenizer's normal form (Unicode, case or spaces), as it reads all"
UNSPELLABLE = "characters that the tokenizer cannot spell"

# Markers with which families of models begin or end turns. In the text of an answer, they are left
# over from conversations that someone rendered, whether this tokenizer has such a token or not.
_LEFT, _RIGHT = "(?:<|&lt;)", "(?:>|&gt;)"
_KNOWN = (
    # Llama 3, ChatML, Phi; with wide bars, DeepSeek
    rf"{_LEFT}[|\uff5c][^<>|\uff5c\n]{{1,40}}[|\uff5c]{_RIGHT}",
    rf"{_LEFT}/?\s?s\s?{_RIGHT}|{_LEFT}[be]os{_RIGHT}|\[[be]os\]|{_LEFT}eot{_RIGHT}",
    rf"{_LEFT}/?(?:start|end)_of_(?:turn|utterance|text){_RIGHT}",
    rf"\[/?inst\]|{_LEFT}{_LEFT}/?sys{_RIGHT}{_RIGHT}",
)
_NEXT_SPEAKER = r"#{2,4} ?(?:human|user):"
"""Header of a user's turn, found where an answer ends."""
_AFTER = "[\\s.,;:!?\"'\u2019\u201d\u00bb)]*"
"""What may follow a marker at the end of a text."""
_SEARCHED = 64
"""Characters at either end of a text that are searched for a marker."""


class EncodedText(NamedTuple):
    """A text in ids."""

    ids: list[int]
    fault: str = ""
    """Why a row that holds it is dropped."""
    remarks: tuple[str, ...] = ()
    """What a person should know about it, as a phrase that follows a number of responses."""
    hidden: range = range(0)
    """Its tokens that cannot be seen."""


class Supervised:
    """Encodes text that carries loss, as the continuation of other text."""

    def __init__(self, chat: Chat, continuation: Tokenizer) -> None:
        self._continuation = continuation
        self._stop = chat.turn_end.stop_id
        self._stop_inside = f"the stop token {chat.decode([self._stop])!r} stands in the response"
        self._opening = chat.opening.removeprefix(chat.marks).strip()
        added = chat.tokenizer.added_tokens_decoder
        own = [token.content for id_, token in added.items() if token.special or id_ == self._stop]
        self._mark = "|".join((*map(_escaped, sorted(own, key=len, reverse=True)), *_KNOWN))
        self._spelt: dict[str, bool] = {}
        """Characters of texts that cannot be spelled, and whether each one survives on its own."""

    def encode(self, texts: Sequence[str]) -> list[EncodedText]:
        """Return the ids of each text, with its fault or remarks."""
        ids, read = self._encode_and_decode(texts)
        return list(map(self._judged, texts, ids, read))

    @property
    def lost(self) -> list[str]:
        """Characters met so far that the tokenizer cannot spell."""
        return [character for character, is_spelt in self._spelt.items() if not is_spelt]

    def _encode_and_decode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[str]]:
        encoded = self._continuation.encode_batch_fast(texts, add_special_tokens=False)
        ids = [each.ids for each in encoded]
        # After a token, because SentencePiece's decoder removes a space at the start of a text.
        behind = [[self._stop, *each] for each in ids]
        decoded = self._continuation.decode_batch(behind, skip_special_tokens=False)
        start = len(self._continuation.decode([self._stop], skip_special_tokens=False))
        return ids, [text[start:] for text in decoded]

    def _judged(self, text: str, ids: list[int], read: str) -> EncodedText:
        if self._stop in ids:
            return EncodedText(ids, self._stop_inside)
        remarks = self._written_marks(text)
        if read != text:
            if read != self._normalised(text):
                self._look_for_lost(text)
                return EncodedText(ids, UNSPELLABLE)
            remarks = (*remarks, NORMALISED)
        return EncodedText(ids, "", remarks)

    def _look_for_lost(self, text: str) -> None:
        new = [character for character in dict.fromkeys(text) if character not in self._spelt]
        for character, read in zip(new, self._encode_and_decode(new)[1], strict=True):
            self._spelt[character] = read in (character, self._normalised(character))

    def _written_marks(self, text: str) -> tuple[str, ...]:
        head, tail = text.lstrip()[:_SEARCHED], text.rstrip()[-_SEARCHED:]
        begun, ended = self._marks
        places = []
        if mark := begun.match(head):
            places.append(f"begin with {mark[0]!r}")
        if mark := ended.search(tail):
            places.append(f"end in {mark[1]!r}")
        advice = "as text: the model learns to write it; remove it from the data"
        return tuple(f"{place} {advice}" for place in places)

    @cached_property
    def _marks(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        first = f"{re.escape(self._opening)}|" if self._opening else ""
        return (
            re.compile(f"(?:{first}{self._mark})", re.IGNORECASE),
            re.compile(rf"({self._mark}|{_NEXT_SPEAKER}){_AFTER}\Z", re.IGNORECASE),
        )

    def _normalised(self, text: str) -> str:
        return self._normalizer.normalize_str(text) if self._normalizer else text

    @cached_property
    def _normalizer(self) -> "Normalizer | None":
        """The tokenizer's own normalizer, which writes a space as a space."""
        declared = json.loads(self._continuation.to_str())["normalizer"]
        if declared is None:
            return None
        # A normalizer cannot be built from JSON; a tokenizer that holds one can.
        alone = Tokenizer.from_str(
            json.dumps(
                {
                    "version": "1.0",
                    "added_tokens": [],
                    "normalizer": _with_spaces(declared),
                    "model": {"type": "WordLevel", "vocab": {}, "unk_token": ""},
                }
            )
        )
        normalizer: Normalizer = alone.normalizer
        return normalizer


def _escaped(mark: str) -> str:
    """Return a pattern for ``mark``, as it is or escaped for HTML."""
    return re.escape(mark).replace("<", _LEFT).replace(">", _RIGHT)


def _with_spaces(part: dict[str, Any]) -> dict[str, Any]:
    part = dict(part)
    if "normalizers" in part:
        part["normalizers"] = [_with_spaces(child) for child in part["normalizers"]]
    if part.get("content") == "\N{LOWER ONE EIGHTH BLOCK}":
        part["content"] = " "
    return part
