"""When so much of an evaluation could not be read that its numbers say nothing.

A verdict that cannot be read is counted and never guessed at. A few of them leave a rate what it
is; of more than one in twenty nobody knows which way they would have gone, and there is no rate.
"""

from collections.abc import Iterable
from typing import NamedTuple

from response_tuning.artifacts import Score

LIMIT = 0.05
"""Share of unread verdicts above which there are no rates."""
MARKS = ("unclassified", "safe_unclassified")
"""Metrics that are above 0 where an answer could not be classified."""
KNOWN_ANYHOW = frozenset(
    (
        *(*MARKS, "unchecked", "filtered", "length", "reference_length"),
        *("stopped", "hit_limit", "empty", "repeated_4gram_share", "tokens_mean"),
    )
)
"""Metrics that no verdict decides."""


class Unread(NamedTuple):
    """How much could not be read."""

    lost: int
    """Answers of which some verdict could not be read."""
    of: int
    share: float
    """Of all verdicts."""

    @property
    def too_many(self) -> bool:
        """Whether the rates say nothing."""
        return self.share > LIMIT

    def __str__(self) -> str:
        """Return what stands beside a number that there is none of."""
        return f"{self.lost:,} of {self.of:,} unread"


def unread(scores: Iterable[Score]) -> Unread:
    """Count what could not be read among the scores of one benchmark."""
    marks = [score for score in scores if score.metric in MARKS]
    whole = sum(score.weight for score in marks)
    gone = sum(score.weight * score.value for score in marks)
    return Unread(sum(score.value > 0 for score in marks), len(marks), gone / whole if whole else 0)
