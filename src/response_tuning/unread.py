"""Whether so many verdicts could not be read that the rates of a benchmark are not known.

An unreadable verdict is counted and never guessed. Few of them hardly change a rate. With more than
one in twenty, the missing verdicts could decide the comparison, so the report shows no rate.
"""

from collections.abc import Iterable
from typing import NamedTuple

from response_tuning.artifacts import Score
from response_tuning.metrics import UNREAD_VERDICTS

LIMIT = 0.05
"""Share of unread verdicts above which there are no rates."""


class Unread(NamedTuple):
    """How many verdicts could not be read."""

    lost: int
    """Answers with at least one unreadable verdict."""
    of: int
    share: float
    """Share of all verdicts."""

    @property
    def too_many(self) -> bool:
        """Whether the rates are not known."""
        return self.share > LIMIT

    def __str__(self) -> str:
        """Return the text that the report shows instead of an interval."""
        return f"{self.lost:,} of {self.of:,} unread"


def unread(scores: Iterable[Score]) -> Unread:
    """Count the unread verdicts among the scores of one benchmark."""
    marks = [score for score in scores if score.metric in UNREAD_VERDICTS]
    total = sum(score.weight for score in marks)
    lost = sum(score.weight * score.value for score in marks)
    count = sum(score.value > 0 for score in marks)
    return Unread(count, len(marks), lost / total if total else 0.0)
