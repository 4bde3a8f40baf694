"""The outcome of each response of a refinement, and their counts."""

from collections import Counter
from collections.abc import Iterable
from statistics import fmean, median
from typing import Any, Literal

from pydantic import Field

from response_tuning.artifacts import FinishReason, Record
from response_tuning.data.steps.refusals import is_refusal
from response_tuning.rewriting import RefinementOutcome


class Refinement(Record):
    """The outcome of one response."""

    row: int
    turn: int
    outcome: RefinementOutcome
    """Outcome of the last reply."""
    used: Literal["refined", "original", "nothing"]
    """The text that the examples contain."""
    asked: int
    """Number of requests, errors included."""
    half: str | None = Field(default=None, exclude_if=lambda half: half is None)
    """The text that was continued, if the response is a continuation."""
    original: str
    refined: str | None
    """The rewrite or the continuation, if the last reply has one, used or not."""
    finish_reason: FinishReason | None
    tokens: int | None
    prompt_tokens: int | None
    error: str | None
    key: str
    """Key of the last reply in the journal."""


def kept_text(one: Refinement) -> str:
    """Return the text that the examples contain."""
    return one.refined if one.used == "refined" and one.refined is not None else one.original


def reason(one: Refinement) -> str:
    """Return why a response is dropped, as the audit counts it."""
    return f"refinement: {one.outcome}"


class Tally:
    """Counts the outcomes of a refinement, example by example."""

    def __init__(self, outcomes: Iterable[RefinementOutcome]) -> None:
        self.outcomes: Counter[RefinementOutcome] = Counter(dict.fromkeys(outcomes, 0))
        self.used = Counter({"refined": 0, "original": 0, "nothing": 0})
        self.rows: set[int] = set()
        """Rows that still have an example."""
        self.dropped: Counter[str] = Counter()
        self.asked = 0
        self._words: list[tuple[int, int]] = []
        """Words of each replaced original, and of its rewrite."""
        self._refusals = Counter({"original": 0, "left": 0})
        self.first_error: str | None = None

    @property
    def examples(self) -> int:
        """Number of examples that are not dropped."""
        return self.used["refined"] + self.used["original"]

    def add(self, one: Refinement) -> None:
        """Count one response."""
        self.outcomes[one.outcome] += 1
        self.used[one.used] += 1
        self.asked += one.asked
        self.first_error = self.first_error or one.error
        self._refusals["original"] += is_refusal(one.original)
        if one.used == "nothing":
            self.dropped[reason(one)] += 1
            return
        self.rows.add(one.row)
        self._refusals["left"] += is_refusal(kept_text(one))
        if one.used == "refined":
            self._words.append((len(one.original.split()), len(kept_text(one).split())))

    def counts(self) -> dict[str, Any]:
        """Return what the counts of a refinement say about its texts."""
        return {
            "responses": self.outcomes.total(),
            "outcomes": dict(self.outcomes),
            "used": dict(self.used),
            "words": self._length_drift(),
            "refusals": dict(self._refusals),
        }

    def _length_drift(self) -> dict[str, float] | None:
        if not self._words:
            return None
        before, after = zip(*self._words, strict=True)
        ratios = (new / max(old, 1) for old, new in self._words)
        return {
            "original": round(fmean(before), 1),
            "refined": round(fmean(after), 1),
            "median_ratio": round(median(ratios), 3),
        }
