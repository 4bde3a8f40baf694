"""Which differences a run can show, before it runs.

It is the report's own computation (``intervals.detectable``), on scores that are assumed instead of
measured. How much training varies is known only afterwards, so these are the best cases.
"""

from collections.abc import Mapping

from response_tuning.metrics import Display
from response_tuning.report.intervals import PairedShares, Student, detectable
from response_tuning.report.metrics import headline
from response_tuning.report.tables import number

DISAGREEMENT = (0.1, 0.5)
"""Shares of prompts on which two variants disagree: similar ones, and two that guess by
themselves."""
SPREAD = 0.25
"""Assumed standard deviation of the difference of two answers, as a share of a metric's scale."""


def planned(benchmark: str, clusters: int, display: Display, confidence: float) -> str:
    """Return a sentence on the differences that a comparison on ``clusters`` of prompts can show.

    ``clusters`` are the distinct things that the prompts ask about.
    """
    first = headline(display.headline, display)[:1] if display.headline else ()
    about = f"power on {benchmark} ({clusters:,} clusters of prompts): at best, a difference of"
    if clusters < 2:
        return f"power on {benchmark}: one cluster of prompts shows no difference, however large"
    if first and first[0] in display.scales:
        lowest, highest = display.scales[first[0]]
        spread = SPREAD * (highest - lowest)
        student = Student(0.0, spread / clusters**0.5, clusters - 1)
        found = detectable(student, student.interval(confidence), confidence)
        return (
            f"{about} {number(found, share=False)} in {first[0]} is found 80 % of the time if the "
            f"difference of two answers has a standard deviation of {spread:g}"
        )
    parts = []
    for share in DISAGREEMENT:
        pair = PairedShares(share / 2, share / 2, clusters)
        found = detectable(pair, pair.interval(confidence), confidence)
        parts.append(
            f"{number(found, share=True)} points (if two variants disagree on {share:.0%})"
        )
    return f"{about} {' or '.join(parts)} is found 80 % of the time"


def plan(
    clusters: Mapping[str, int], displays: Mapping[str, Display], seeds: int, confidence: float
) -> list[str]:
    """Return the sentence on each benchmark, and one on the seeds."""
    if not clusters:
        return []
    sentences = [
        planned(name, count, displays.get(name, Display()), confidence)
        for name, count in clusters.items()
    ]
    many = f"{seeds} seeds" if seeds > 1 else "one seed"
    return [*sentences, f"power counts prompts alone, not how much training varies ({many})"]
