"""The top of a report: what was found, in a sentence, and three numbers.

The sentence covers every benchmark of a primary comparison, and claims no more than its verdicts.
"""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from math import isnan
from typing import NamedTuple

from response_tuning.report.joined import Variant
from response_tuning.report.tables import Comparison, Result, change, number
from response_tuning.report.unreadable import UnknownRates
from response_tuning.report.variance import SEEDS_TO_VARY
from response_tuning.report.verdicts import (
    EQUIVALENT,
    INCONCLUSIVE,
    NO_VARIATION,
    WITHIN,
    Headline,
    listed,
    seeds_of,
)

NUMBERS_SHOWN = 3
Shares = AbstractSet[tuple[str, str]]
"""The (benchmark, metric) that are shown in percent."""
EXPLORATORY = (
    "The recipe declares no primary comparison, so this report tests no claim: every difference in "
    "it is exploratory."
)


class Words(NamedTuple):
    """A part of a sentence."""

    text: str
    is_name: bool = False
    """Whether it is the name of a variant: "it" is one, too."""


Sentence = tuple[Words, ...]


class Number(NamedTuple):
    """A number at the top of a report."""

    value: str
    unit: str
    of: str
    """What was measured, and on what."""
    interval: str
    beside: str
    """The same number of the variants that it is compared with; empty for a difference."""
    unread: str = ""
    """Why the number is not known; empty where it is."""


class Subject(NamedTuple):
    """Whom the report is about, by which metric, and the variants that it is compared with."""

    variant: str
    metric: str
    """Empty where nothing is declared: then it is the first metric of each benchmark."""
    baselines: tuple[str, ...]


def subject_of(
    found: Sequence[Headline], variants: Sequence[Variant], results: Sequence[Result]
) -> Subject:
    """Return whom the first primary comparison is about, or else the first tuned variant."""
    if found:
        first = found[0]
        same = [h for h in found if (h.variant, h.metric) == (first.variant, first.metric)]
        return Subject(first.variant, first.metric, tuple(h.baseline for h in same))
    scored = {result.variant for result in results}
    known = [variant for variant in variants if variant.name in scored]
    one = next((variant for variant in known if variant.training), known[0])
    others = [variant.name for variant in known if variant is not one]
    return Subject(one.name, "", tuple(others[: NUMBERS_SHOWN - 1]))


def finding(found: Sequence[Headline], shares: Shares) -> list[Sentence]:
    """Return a sentence for each variant and metric that the recipe declares primary."""
    if not found:
        return [(Words(EXPLORATORY),)]
    by_subject: dict[tuple[str, str], list[Headline]] = {}
    for one in found:
        by_subject.setdefault((one.variant, one.metric), []).append(one)
    return [
        (
            Words(f"By {metric.replace('_', ' ')}, "),
            Words(variant, is_name=True),
            Words(" is "),
            *_joined([[*_compared(one, shares)] for one in of_it]),
            Words("."),
        )
        for (variant, metric), of_it in by_subject.items()
    ]


def hedge(found: Sequence[Headline]) -> str:
    """Return what the finding rests on, and what it says nothing about."""
    every = [c for one in found for c in one.comparisons]
    if not every:
        return ""
    fewest = min(c.seeds for c in every)
    tests = "p-values are corrected for all primary comparisons (Holm)"
    if fewest < SEEDS_TO_VARY:
        return f"{seeds_of(fewest)}: {NO_VARIATION}. Verdicts hold for new prompts alone; {tests}."
    return f"Over prompts and {seeds_of(fewest)} of training; {tests}."


def numbers(
    subject: Subject,
    found: Sequence[Headline],
    results: Sequence[Result],
    metrics: Mapping[str, Sequence[str]],
    shares: Shares,
    unknown: UnknownRates,
) -> list[Number]:
    """Return three numbers: the subject's on the first benchmarks, and then differences.

    ``metrics`` has the metrics of each benchmark that tables show; the first one counts where the
    subject has none of its own.
    """
    of = {(r.variant, r.benchmark, r.metric): r for r in results}
    values = (
        _value(of, subject, benchmark, metric, shares, unknown)
        for benchmark, names in metrics.items()
        for metric in [subject.metric or next(iter(names), "")]
        if (subject.variant, benchmark, metric) in of
    )
    differences = (
        Number(
            change(c.delta, share), "points" if share else "",
            f"{c.variant} minus {c.baseline}, {c.metric.replace('_', ' ')} on {c.benchmark}",
            f"{change(c.low, share)} to {change(c.high, share)}", "",
        )
        for one in found
        for c in one.comparisons
        for share in [(c.benchmark, c.metric) in shares]
    )  # fmt: skip
    return [one for one, _ in zip(chain(values, differences), range(NUMBERS_SHOWN), strict=False)]


def _value(
    of: Mapping[tuple[str, str, str], Result],
    subject: Subject,
    benchmark: str,
    metric: str,
    shares: Shares,
    unknown: UnknownRates,
) -> Number:
    r, share = of[subject.variant, benchmark, metric], (benchmark, metric) in shares
    unread = str(unknown[r.variant, benchmark]) if isnan(r.value) else ""
    beside = (
        f"{name} {number(of[name, benchmark, metric].value, share)}"
        for name in subject.baselines
        if (name, benchmark, metric) in of
    )
    return Number(
        number(r.value, share),
        "%" if share and not unread else "",
        f"{subject.variant}, {metric.replace('_', ' ')} on {benchmark}",
        "" if unread else f"{number(r.low, share)} to {number(r.high, share)}",
        ", ".join(beside),
        unread,
    )


def _compared(one: Headline, shares: Shares) -> Iterator[Sentence]:
    """Yield what each verdict says about the baseline, with the benchmarks that it holds on."""
    by_verdict: dict[str, list[Comparison]] = {}
    for c in one.comparisons:
        by_verdict.setdefault(c.verdict, []).append(c)
    for verdict, same in by_verdict.items():
        everywhere = len(same) == len(one.comparisons) and not (one.lacking or one.outside)
        yield (
            *_verdict(verdict, one.baseline, same, shares),
            Words(f" {_places(same, everywhere=everywhere)}"),
            *_sizes(verdict, same, shares),
        )
    if one.lacking:
        yield (
            Words("not compared with "),
            Words(one.baseline, is_name=True),
            Words(f" on {listed(one.lacking)}"),
        )


def _verdict(
    verdict: str, baseline: str, same: Sequence[Comparison], shares: Shares
) -> Iterator[Words]:
    name = Words(baseline, is_name=True)
    margins = dict.fromkeys(
        _with_unit(number(c.margin, share), share)
        for c in same
        for share in [(c.benchmark, c.metric) in shares]
        if c.margin is not None
    )
    if verdict == EQUIVALENT:
        yield from (Words("equivalent to "), name, Words(f" within {' or '.join(margins)}"))
    elif verdict == INCONCLUSIVE:
        yield from (Words("not shown to differ from "), name)
    else:
        yield from (Words(f"{verdict.split()[0]} than "), name)
        if verdict.endswith(WITHIN):
            yield Words(f", within the margin of {' or '.join(margins)},")


def _places(same: Sequence[Comparison], *, everywhere: bool) -> str:
    if everywhere and len(same) > 1:
        return f"on {'both' if len(same) == 2 else f'all {len(same)}'} benchmarks"
    return f"on {listed([c.benchmark for c in same])}"


def _sizes(verdict: str, same: Sequence[Comparison], shares: Shares) -> Iterator[Words]:
    """Yield how large the differences are, where the metric has one unit on all benchmarks."""
    kinds = {(c.benchmark, c.metric) in shares for c in same}
    if len(kinds) > 1:
        return
    share = kinds.pop()
    if verdict in (EQUIVALENT, INCONCLUSIVE):
        shown = [change(c.delta, share) for c in sorted(same, key=lambda c: c.delta)]
        lead = ""
    else:
        shown = [number(size, share) for size in sorted(abs(c.delta) for c in same)]
        lead = "by "
    ends = [*dict.fromkeys((shown[0], shown[-1]))]
    yield Words(f" ({lead}{_with_unit(' to '.join(ends), share)})")


def _with_unit(text: str, share: bool) -> str:
    return f"{text} points" if share else text


def _joined(groups: Sequence[Sequence[Sentence]]) -> Iterator[Words]:
    """Yield the phrases on all baselines: commas between them, and "and" before the last."""
    phrases = [phrase for group in groups for phrase in group]
    for place, phrase in enumerate(phrases):
        if place:
            yield Words(", and " if place == len(phrases) - 1 else ", ")
        yield from phrase
