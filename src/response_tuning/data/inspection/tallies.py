"""What is counted about responses, one at a time: a small class for each question about a file.

None of them holds responses. What could grow with their number is a digest of each (``Repeats``)
or is bounded (``Frequent``).
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any, Protocol

from response_tuning.artifacts import Record
from response_tuning.data.conversations import Turn
from response_tuning.data.digests import DigestSet
from response_tuning.data.steps import personal, refusals, restatements
from response_tuning.data.steps.language import language

SHOWN = 10
"""Entries of a list that are shown."""
SHOWN_CHARACTERS = 200
TEXTS_AT_ONCE = 1000
"""Responses that a tokenizer is handed together."""


class Text(Record):
    """A text of the file, cut to what is shown of it."""

    count: int
    """How often it is there."""
    text: str
    """What holds personal data is replaced by a word about it."""
    where: str = ""
    """File and line, or record number, where one instance is found."""


class Top(Record):
    """The most frequent texts."""

    texts: tuple[Text, ...]
    exact: bool
    """Whether nothing was forgotten on the way; else the counts are lower bounds."""


class Bar(Record):
    """Responses whose length is from ``low`` to ``high``."""

    low: int
    high: int
    count: int


class Lengths(Record):
    """Lengths of all responses in one unit; quantiles are lengths that occur (nearest rank)."""

    min: int
    median: int
    mean: float
    p95: int
    max: int
    histogram: tuple[Bar, ...]
    """From 1, 2, 5, 10, 20, 50 ... on, since lengths spread over orders of magnitude."""


class Tally(Protocol):
    """Counts one kind of thing."""

    def add(self, said: Turn, where: str) -> None:
        """Count what is in one turn, which has a response."""
        ...

    def fields(self) -> Mapping[str, Any]:
        """Return the fields of ``Inspection`` that this fills."""
        ...


class Frequent:
    """The most frequent of many strings, in bounded memory.

    When there are more than ``limit`` different ones, the rarer half is forgotten: a count may
    then be too low, by what had come before.
    """

    def __init__(self, limit: int = 50_000) -> None:
        self._limit = limit
        self.counts: Counter[str] = Counter()
        self.pruned = False

    def add(self, key: str) -> None:
        """Count one more ``key``."""
        self.counts[key] += 1
        if len(self.counts) > self._limit:
            self.counts = Counter(dict(self.counts.most_common(self._limit // 2)))
            self.pruned = True

    def top(self) -> Top:
        """Return the most frequent ones that came more than once."""
        found = self.counts.most_common(SHOWN)
        texts = (Text(count=n, text=presentable(key)) for key, n in found if n > 1)
        return Top(texts=tuple(texts), exact=not self.pruned)


class Instructions:
    """Turns with an instruction, and those that do no more than say it again."""

    def __init__(self) -> None:
        self._with = self._same = 0

    def add(self, said: Turn, where: str) -> None:
        """Count a turn."""
        self._with += said.instruction is not None
        self._same += (said.instruction or "").strip() == said.response.strip()

    def fields(self) -> Mapping[str, Any]:
        """Return both counts."""
        return {"with_instruction": self._with, "same_as_instruction": self._same}


class Measures:
    """Lengths in characters, in words and, given something that counts them, in tokens."""

    def __init__(self, count_tokens: Callable[[list[str]], list[int]] | None) -> None:
        self._count_tokens = count_tokens
        self._waiting: list[str] = []
        self._lengths: dict[str, Counter[int]] = {"characters": Counter(), "words": Counter()}
        if count_tokens is not None:
            self._lengths["tokens"] = Counter()

    def add(self, said: Turn, where: str) -> None:
        """Measure a response."""
        self._lengths["characters"][len(said.response)] += 1
        self._lengths["words"][len(said.response.split())] += 1
        if self._count_tokens is not None:
            self._waiting.append(said.response)
            if len(self._waiting) == TEXTS_AT_ONCE:
                self._tokenize()

    def fields(self) -> Mapping[str, Any]:
        """Return the lengths by unit."""
        self._tokenize()
        return {"lengths": {unit: _summary(counts) for unit, counts in self._lengths.items()}}

    def _tokenize(self) -> None:
        if self._count_tokens is not None and self._waiting:
            self._lengths["tokens"].update(self._count_tokens(self._waiting))
            self._waiting.clear()


class Repeats:
    """Responses that were said before, word for word, whatever they answer."""

    def __init__(self) -> None:
        self._seen = DigestSet()
        self._again = Frequent()
        self._texts: dict[str, Text] = {}
        self._repeats = 0

    def add(self, said: Turn, where: str) -> None:
        """Look whether a response was said before."""
        digest = hashlib.blake2b(said.response.encode(), digest_size=8).digest()
        if self._seen.add(digest):
            return
        self._repeats += 1
        key = digest.hex()
        if key not in self._texts:
            self._texts[key] = Text(count=0, text=presentable(said.response), where=where)
        self._again.add(key)
        if len(self._texts) > 2 * len(self._again.counts):  # after a pruning
            self._texts = {key: self._texts[key] for key in self._again.counts}

    def fields(self) -> Mapping[str, Any]:
        """Return how many turns repeat an earlier one, and what is said most often."""
        most = self._again.counts.most_common(SHOWN)
        texts = [self._texts[key].model_copy(update={"count": 1 + n}) for key, n in most]
        top = Top(texts=tuple(texts), exact=not self._again.pruned)
        return {"repeats": self._repeats, "repeated": top}


class Refusals:
    """Refusals by both rules."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(("phrases", "paper-regex", "both"), 0)

    def add(self, said: Turn, where: str) -> None:
        """Judge a response."""
        found = [refusals.is_refusal(said.response, name) for name in ("phrases", "paper-regex")]
        for name, is_one in zip(self._counts, (*found, all(found)), strict=True):
            self._counts[name] += is_one

    def fields(self) -> Mapping[str, Any]:
        """Return the counts."""
        return {"refusals": self._counts}


class Restatements:
    """Openings that give the instruction away."""

    def __init__(self) -> None:
        self._count = 0
        self._examples: list[Text] = []

    def add(self, said: Turn, where: str) -> None:
        """Look at how a response begins."""
        opening = restatements.opening(said.response, said.instruction)
        if opening is None:
            return
        self._count += 1
        if len(self._examples) < SHOWN:
            text = presentable(opening.strip(), said.response)
            self._examples.append(Text(count=1, text=text, where=where))

    def fields(self) -> Mapping[str, Any]:
        """Return the count and the first ones."""
        return {"restatements": self._count, "restatement_examples": tuple(self._examples)}


class PersonalData:
    """Personal data by kind, and where the first are: never the data themselves."""

    def __init__(self) -> None:
        self._responses = 0
        self._counts: Counter[str] = Counter()
        self._places: dict[str, list[str]] = {}

    def add(self, said: Turn, where: str) -> None:
        """Look for personal data in a response."""
        kinds = _personal_data(said.response)
        self._responses += bool(kinds)
        for kind in kinds:
            self._counts[kind] += 1
            places = self._places.setdefault(kind, [])
            if len(places) < SHOWN:
                places.append(where)

    def fields(self) -> Mapping[str, Any]:
        """Return counts and places by kind."""
        return {
            "with_personal_data": self._responses,
            "personal_data": dict(self._counts),
            "personal_data_places": self._places,
        }


class Languages:
    """Languages of the responses."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, said: Turn, where: str) -> None:
        """Tell the language of a response."""
        self._counts[language(said.response) or "not told"] += 1

    def fields(self) -> Mapping[str, Any]:
        """Return the counts, the most frequent first."""
        return {"languages": dict(self._counts.most_common())}


class Forms:
    """How responses begin, end and are laid out."""

    def __init__(self) -> None:
        self._openings = Frequent()
        self._endings = Frequent()
        self._ends = dict.fromkeys(ENDS, 0)
        self._layouts = dict.fromkeys(LAYOUTS, 0)
        self._cut = 0

    def add(self, said: Turn, where: str) -> None:
        """Look at the form of a response."""
        text = said.response.strip()
        # The whole is looked at before it is cut: three words may hold half a number.
        hidden, shown = _hidden(text), personal.masked(text)
        opening, ending = shown.split(None, 3)[:3], shown.rsplit(None, 3)[-3:]
        self._openings.add(hidden or " ".join(opening)[:SHOWN_CHARACTERS])
        self._endings.add(hidden or " ".join(ending)[-SHOWN_CHARACTERS:])
        self._ends[_end(text)] += 1
        self._cut += is_cut(text)
        for name, pattern in LAYOUTS.items():
            self._layouts[name] += bool(pattern.search(text))

    def fields(self) -> Mapping[str, Any]:
        """Return the most frequent beginnings and ends, and the counts of the rest."""
        return {
            "openings": self._openings.top(),
            "endings": self._endings.top(),
            "ends": self._ends,
            "cut": self._cut,
            "layouts": self._layouts,
        }


ENDS = {
    "a full stop, question or exclamation mark": re.compile(
        r"[.!?\u2026\u3002\uff01\uff1f][\"')\]*_\u2019\u201d\u00bb]*$"
    ),
    "a code fence": re.compile(r"```$"),
    "a letter or digit": re.compile(r"\w$"),
    "another sign": re.compile(r"$"),
}
"""What stands at the end of a response; the first that fits."""

LAYOUTS = {
    "lists": re.compile(r"^[ \t]*(?:[-*+\u2022]|\d{1,3}[.)])[ \t]", re.MULTILINE),
    "headings": re.compile(r"^#{1,6}[ \t]*\w", re.MULTILINE),
    "code fences": re.compile(r"^[ \t]*```", re.MULTILINE),
}

_ENTRY = re.compile(r"\s*(?:[-*+#|>\u2022]|\d{1,3}[.)]|```)")
_SENTENCE_BEFORE = re.compile(r"[a-z)][.!?][\"')\u201d]* +[A-Z\"\u201c]")


def is_cut(text: str) -> bool:
    """Say whether a response seems to stop within a sentence.

    Its last line is prose, and ends in a comma, or in a letter or digit after a whole sentence.
    Of responses cut at random after 20 words or more this finds 34 % (LIMA, with its short
    paragraphs) to 67 % (Alpaca); of whole ones it suspects 0.1 % (Alpaca) to 1.7 % (Dolly).
    """
    last = text.rpartition("\n")[2]
    if _ENTRY.match(last) or last.rpartition(" ")[2].startswith("#"):
        return False
    return text.endswith(",") or (text[-1:].isalnum() and bool(_SENTENCE_BEFORE.search(last)))


def presentable(text: str, whole: str | None = None) -> str:
    """Return what is shown of a text: its beginning, and nothing of one with personal data.

    Nor of a part of one: ``whole`` is what ``text`` was cut out of.
    """
    shown = personal.masked(text)
    cut = len(shown) > SHOWN_CHARACTERS
    shortened = f"{shown[: SHOWN_CHARACTERS - 1]}\u2026" if cut else shown
    return _hidden(text if whole is None else whole) or shortened


def _hidden(text: str) -> str:
    """Return what stands for a text with personal data; empty for another one."""
    kinds = _personal_data(text)
    return f"[holds personal data: {', '.join(kinds)}]" if kinds else ""


@lru_cache(maxsize=4)
def _personal_data(text: str) -> tuple[str, ...]:
    """Look once at a response that several tallies ask about."""
    return tuple(personal.found(text))


def _end(text: str) -> str:
    return next(name for name, pattern in ENDS.items() if pattern.search(text[-9:]))


def _summary(counts: Counter[int]) -> Lengths:
    lengths = sorted(counts)
    total = counts.total()
    return Lengths(
        min=lengths[0],
        median=_quantile(counts, 0.5),
        mean=sum(length * count for length, count in counts.items()) / total,
        p95=_quantile(counts, 0.95),
        max=lengths[-1],
        histogram=_histogram(counts),
    )


def _quantile(counts: Counter[int], share: float) -> int:
    wanted = share * counts.total()
    below = 0
    for length in sorted(counts):
        below += counts[length]
        if below >= wanted:
            return length
    raise ValueError("there are no lengths")


def _histogram(counts: Counter[int]) -> tuple[Bar, ...]:
    edges = [0, *(step * 10**power for power in range(13) for step in (1, 2, 5))]
    bars = [
        Bar(low=low, high=high - 1, count=sum(counts[n] for n in counts if low <= n < high))
        for low, high in pairwise(edges)
    ]
    filled = [place for place, bar in enumerate(bars) if bar.count]
    return tuple(bars[filled[0] : filled[-1] + 1])
