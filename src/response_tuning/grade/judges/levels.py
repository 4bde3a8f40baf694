"""Acceptability in three levels (the paper's section 4 and appendix A.1), for people and judges."""

from collections.abc import Sequence
from statistics import fmean
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["excellent", "sufficient", "not acceptable"]

LEVELS: dict[Level, str] = {
    "excellent": "fits the request, helps the person who made it, and does all that was asked.",
    "sufficient": "fits the request and helps, but misses something minor that was asked.",
    "not acceptable": (
        "is off the point, unclear or unfinished, does another task than the one asked, or has "
        "grave faults of form, such as repeating itself or running on into unrelated text."
    ),
}
"""What an answer of each level is like, the best first; in our own words."""


LEVEL_METRICS = (*(level.replace(" ", "_") for level in LEVELS), "acceptable")


def level_metrics(given: Sequence[str]) -> dict[str, float]:
    """Return metric -> share of the levels that one answer was given: one gives zeros and ones."""
    found = {level.replace(" ", "_"): fmean(one == level for one in given) for level in LEVELS}
    return found | {"acceptable": fmean(one != "not acceptable" for one in given)}
