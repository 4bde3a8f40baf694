"""Counts about responses: a small class for each question about a file.

No tally holds the responses. Memory holds a digest of each (``RepeatTally``) and bounded counts
(``Frequent``).
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
from response_tuning.data.steps import mail, personal, refusals, restatements
from response_tuning.data.steps.language import language

MOST_ENTRIES = 10
"""Most entries of a list."""
MOST_CHARACTERS = 200
"""Most characters of a text in a list."""
UNDETERMINED = "not told"
"""Key of the responses without a detected language."""
TEXTS_AT_ONCE = 1000
"""Responses in a batch for the tokenizer."""


class Text(Record):
    """A text of the file, shortened to be shown."""

    count: int
    """How often it occurs."""
    text: str
    """A note instead of the text, if the text holds personal data."""
    where: str = ""
    """File and line, or record number, of one occurrence."""


class Top(Record):
    """The most frequent texts."""

    texts: tuple[Text, ...]
    exact: bool
    """Whether the counts are exact; else they are lower bounds."""


class LengthBin(Record):
    """Number of responses with a length from ``low`` to ``high``."""

    low: int
    high: int
    count: int


class Lengths(Record):
    """Lengths of all responses in one unit; quantiles use the nearest rank."""

    min: int
    median: int
    mean: float
    p95: int
    max: int
    histogram: tuple[LengthBin, ...]
    """Bins start at 1, 2, 5, 10, 20, 50 ...: lengths spread over orders of magnitude."""


class Tally(Protocol):
    """Answers one question about a file, turn by turn."""

    def add(self, turn: Turn, where: str) -> None:
        """Count one turn; its response is not empty."""
        ...

    def fields(self) -> Mapping[str, Any]:
        """Return the fields of ``Inspection`` that this fills."""
        ...


class Frequent:
    """The most frequent of many strings, in bounded memory.

    When more than ``limit`` different strings are counted, the rarer half is discarded. A string
    that occurs again later then has too low a count.
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
        """Return the most frequent strings that occur more than once."""
        frequent = self.counts.most_common(MOST_ENTRIES)
        texts = (Text(count=n, text=presentable(key)) for key, n in frequent if n > 1)
        return Top(texts=tuple(texts), exact=not self.pruned)


class InstructionTally:
    """Turns with an instruction, and turns that only repeat it."""

    def __init__(self) -> None:
        self._with = self._same = 0

    def add(self, turn: Turn, where: str) -> None:
        """Count a turn."""
        self._with += turn.instruction is not None
        self._same += (turn.instruction or "").strip() == turn.response.strip()

    def fields(self) -> Mapping[str, Any]:
        """Return both counts."""
        return {"with_instruction": self._with, "same_as_instruction": self._same}


class LengthTally:
    """Lengths in characters, in words and, given a tokenizer, in tokens."""

    def __init__(self, count_tokens: Callable[[list[str]], list[int]] | None) -> None:
        self._count_tokens = count_tokens
        self._waiting: list[str] = []
        self._lengths: dict[str, Counter[int]] = {"characters": Counter(), "words": Counter()}
        if count_tokens is not None:
            self._lengths["tokens"] = Counter()

    def add(self, turn: Turn, where: str) -> None:
        """Measure a response."""
        self._lengths["characters"][len(turn.response)] += 1
        self._lengths["words"][len(turn.response.split())] += 1
        if self._count_tokens is not None:
            self._waiting.append(turn.response)
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


class RepeatTally:
    """Exact duplicates of earlier responses, whatever their instructions are."""

    def __init__(self) -> None:
        self._seen = DigestSet()
        self._again = Frequent()
        self._texts: dict[str, Text] = {}
        self._repeats = 0

    def add(self, turn: Turn, where: str) -> None:
        """Compare a response with all earlier ones."""
        digest = hashlib.blake2b(turn.response.encode(), digest_size=8).digest()
        if self._seen.add(digest):
            return
        self._repeats += 1
        key = digest.hex()
        if key not in self._texts:
            self._texts[key] = Text(count=0, text=presentable(turn.response), where=where)
        self._again.add(key)
        # Texts are kept for showing only. When ``Frequent`` discards counts, discard their texts.
        if len(self._texts) > 2 * len(self._again.counts):
            self._texts = {key: self._texts[key] for key in self._again.counts}

    def fields(self) -> Mapping[str, Any]:
        """Return the number of duplicates and the most frequent responses."""
        most = self._again.counts.most_common(MOST_ENTRIES)
        texts = [self._texts[key].model_copy(update={"count": 1 + n}) for key, n in most]
        top = Top(texts=tuple(texts), exact=not self._again.pruned)
        return {"repeats": self._repeats, "repeated": top}


class RefusalTally:
    """Refusals by both selectors."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(("phrases", "paper-regex", "both"), 0)

    def add(self, turn: Turn, where: str) -> None:
        """Apply both selectors to a response."""
        selectors = ("phrases", "paper-regex")
        selected = [refusals.is_refusal(turn.response, name) for name in selectors]
        for name, is_refusal in zip(self._counts, (*selected, all(selected)), strict=True):
            self._counts[name] += is_refusal

    def fields(self) -> Mapping[str, Any]:
        """Return the counts."""
        return {"refusals": self._counts}


class RestatementTally:
    """Openings that restate the instruction."""

    def __init__(self) -> None:
        self._count = 0
        self._examples: list[Text] = []

    def add(self, turn: Turn, where: str) -> None:
        """Check the opening of a response."""
        opening = restatements.opening(turn.response, turn.instruction)
        if opening is None:
            return
        self._count += 1
        if len(self._examples) < MOST_ENTRIES:
            text = presentable(opening.strip(), turn.response)
            self._examples.append(Text(count=1, text=text, where=where))

    def fields(self) -> Mapping[str, Any]:
        """Return the count and the first examples."""
        return {"restatements": self._count, "restatement_examples": tuple(self._examples)}


class PersonalDataTally:
    """Personal data by kind, and the places of the first ones: never the data itself."""

    def __init__(self) -> None:
        self._responses = 0
        self._counts: Counter[str] = Counter()
        self._places: dict[str, list[str]] = {}

    def add(self, turn: Turn, where: str) -> None:
        """Look for personal data in a response."""
        kinds = _personal_data(turn.response)
        self._responses += bool(kinds)
        for kind in kinds:
            self._counts[kind] += 1
            places = self._places.setdefault(kind, [])
            if len(places) < MOST_ENTRIES:
                places.append(where)

    def fields(self) -> Mapping[str, Any]:
        """Return counts and places by kind."""
        return {
            "with_personal_data": self._responses,
            "personal_data": dict(self._counts),
            "personal_data_places": self._places,
        }


class LanguageTally:
    """Languages of the responses."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, turn: Turn, where: str) -> None:
        """Detect the language of a response."""
        self._counts[language(turn.response) or UNDETERMINED] += 1

    def fields(self) -> Mapping[str, Any]:
        """Return the counts, the most frequent first."""
        return {"languages": dict(self._counts.most_common())}


class FormTally:
    """Openings, endings and Markdown of responses."""

    def __init__(self) -> None:
        self._openings = Frequent()
        self._endings = Frequent()
        self._ends = dict.fromkeys(ENDS, 0)
        self._layouts = dict.fromkeys(LAYOUTS, 0)
        self._cut = 0

    def add(self, turn: Turn, where: str) -> None:
        """Check the form of a response."""
        text = turn.response.strip()
        # Mask the whole text before cutting it: three words may hold half a telephone number.
        hidden, shown = _hidden(text), personal.masked(text)
        opening, ending = shown.split(None, 3)[:3], shown.rsplit(None, 3)[-3:]
        self._openings.add(hidden or " ".join(opening)[:MOST_CHARACTERS])
        self._endings.add(hidden or " ".join(ending)[-MOST_CHARACTERS:])
        self._ends[_end(text)] += 1
        self._cut += is_cut(text)
        for name, pattern in LAYOUTS.items():
            self._layouts[name] += bool(pattern.search(text))

    def fields(self) -> Mapping[str, Any]:
        """Return the most frequent openings and endings, and the counts of the rest."""
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
"""Name -> pattern of the end of a response; the first match counts."""

LAYOUTS = {
    "lists": re.compile(r"^[ \t]*(?:[-*+\u2022]|\d{1,3}[.)])[ \t]", re.MULTILINE),
    "headings": re.compile(r"^#{1,6}[ \t]*\w", re.MULTILINE),
    "code fences": re.compile(r"^[ \t]*```", re.MULTILINE),
}

_ENTRY = re.compile(r"\s*(?:[-*+#|>\u2022]|\d{1,3}[.)]|```)")
_SENTENCE_BEFORE = re.compile(r"[a-z)][.!?][\"')\u201d]* +[A-Z\"\u201c]")


def is_cut(text: str) -> bool:
    """Whether a response seems to stop within a sentence.

    If so, its last line is prose and ends in a comma, or in a letter or digit after a whole
    sentence, with a signature and without. Of responses cut at random after 20 words or more, this
    detects 34 % (LIMA, with its short paragraphs) to 67 % (Alpaca); of whole ones, it suspects
    0.1 % (Alpaca) to 1.7 % (Dolly).
    0.1 % (Alpaca) to 1.7 % (Dolly).
    """
    return _stops_short(text) and _stops_short(mail.without_signature(text))


def _stops_short(text: str) -> bool:
    last = text.rpartition("\n")[2]
    if _ENTRY.match(last) or last.rpartition(" ")[2].startswith("#"):
        return False
    return text.endswith(",") or (text[-1:].isalnum() and bool(_SENTENCE_BEFORE.search(last)))


def presentable(text: str, whole: str | None = None) -> str:
    """Return the beginning of a text, masked, or a note if it holds personal data.

    ``whole`` is the text that ``text`` was cut out of; personal data anywhere in it hides the part.
    """
    shown = personal.masked(text)
    cut = len(shown) > MOST_CHARACTERS
    shortened = f"{shown[: MOST_CHARACTERS - 1]}\u2026" if cut else shown
    return _hidden(text if whole is None else whole) or shortened


def _hidden(text: str) -> str:
    """Return a note in place of a text with personal data; empty for other texts."""
    kinds = _personal_data(text)
    return f"[holds personal data: {', '.join(kinds)}]" if kinds else ""


@lru_cache(maxsize=4)
def _personal_data(text: str) -> tuple[str, ...]:
    """Return the kinds of personal data; cached, as several tallies ask about one response."""
    return tuple(personal.kinds_in(text))


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
    raise ValueError("no lengths to take a quantile of")


def _histogram(counts: Counter[int]) -> tuple[LengthBin, ...]:
    edges = [0, *(step * 10**power for power in range(13) for step in (1, 2, 5))]
    bars = [
        LengthBin(low=low, high=high - 1, count=sum(counts[n] for n in counts if low <= n < high))
        for low, high in pairwise(edges)
    ]
    filled = [place for place, bar in enumerate(bars) if bar.count]
    return tuple(bars[filled[0] : filled[-1] + 1])
