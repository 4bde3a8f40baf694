"""What the comparisons show, in one verdict each, and in sentences on the primary ones."""

from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple, Protocol

from response_tuning.report.joined import BenchmarkScores, Variant
from response_tuning.report.tables import Comparison, number
from response_tuning.report.variance import SEEDS_TO_VARY
from response_tuning.report_config import ReportConfig

EQUIVALENT = "equivalent"
INCONCLUSIVE = "inconclusive"
WITHIN = "within the margin"
NO_VARIATION = "no information on how much training varies"
"""What one or two seeds say about another seed."""


class Headline(NamedTuple):
    """A primary comparison on every benchmark with its metric."""

    variant: str
    baseline: str
    metric: str
    comparisons: list[Comparison]
    sentences: list[str]
    lacking: list[str]
    """Benchmarks with the metric on which the two cannot be compared."""
    outside: list[str]
    """Benchmarks without the metric."""


def decided(comparisons: Sequence[Comparison], config: ReportConfig) -> list[Comparison]:
    """Return the comparisons with a verdict each; those that are primary share Holm's correction.

    Equivalence has no such correction: it is claimed for a primary comparison only if it holds on
    all benchmarks, and such a claim needs none (Berger 1982, Technometrics 24, 295-300).
    """
    wanted = {(one.variant, one.baseline, one.metric) for one in config.primary}
    primary = [c for c in comparisons if (c.variant, c.baseline, c.metric) in wanted]
    adjusted = dict(zip(map(_key, primary), _holm([c.p_value for c in primary]), strict=True))
    marked = (
        c._replace(primary=_key(c) in adjusted, p_holm=adjusted.get(_key(c))) for c in comparisons
    )
    return [c._replace(verdict=_verdict(c, config.confidence)) for c in marked]


class _Reported(Protocol):
    """What is reported: the settings, the variants and all benchmarks of the run."""

    @property
    def config(self) -> ReportConfig: ...
    @property
    def variants(self) -> Sequence[Variant]: ...
    @property
    def benchmarks(self) -> Sequence[BenchmarkScores]: ...


def headlines(
    comparisons: Sequence[Comparison], reported: _Reported, shares: Container[tuple[str, str]]
) -> list[Headline]:
    """Return the primary comparisons, each on all benchmarks with its metric.

    A benchmark on which the two cannot be compared is named, too. ``shares`` are the metrics that
    are shown in percent.
    """
    by_name = {variant.name: variant for variant in reported.variants}
    found = []
    for one in reported.config.primary:
        same = [
            c
            for c in comparisons
            if (c.variant, c.baseline, c.metric) == (one.variant, one.baseline, one.metric)
        ]
        compared = {c.benchmark for c in same}
        lacking = [
            benchmark.name
            for benchmark in reported.benchmarks
            if one.metric in benchmark.values and benchmark.name not in compared
        ]
        outside = [b.name for b in reported.benchmarks if one.metric not in b.values]
        sentences = [
            *_said(same, lacking),
            *_not_covered(outside, one.metric),
            *_equivalence(same, lacking, reported.config, shares),
            *_power(same, shares),
            *_training(same, shares),
            twins(by_name[one.variant], by_name[one.baseline]),
        ]
        names = one.variant, one.baseline, one.metric
        found.append(Headline(*names, same, sentences, lacking, outside))
    return found


def _not_covered(outside: Sequence[str], metric: str) -> Iterator[str]:
    if outside:
        has = "has" if len(outside) == 1 else "have"
        yield f"This leaves out {listed(outside)}, which {has} no {metric.replace('_', ' ')}."


def twins(one: Variant, other: Variant) -> str:
    """Return a sentence on whether two variants differ in nothing but their objectives."""
    untuned = [variant.name for variant in (one, other) if not variant.training]
    pair = f"{one.name} and {other.name}"
    if untuned:
        which = "neither has a" if len(untuned) == 2 else f"{untuned[0]} has no"
        return f"{pair} are no twins: {which} tuned model here."
    both = [*zip(one.training, other.training, strict=False)]
    if any(a.examples != b.examples for a, b in both):
        return f"{pair} are no twins: they are tuned on different examples."
    unlike = [
        f"{_numbers(one, key)} and {_numbers(other, key)} {what}"
        for key, what in (
            ("kept", "examples"),
            ("supervised_tokens", "supervised tokens"),
            ("steps", "steps"),
        )
        if any(getattr(a, key) != getattr(b, key) for a, b in both)
    ]
    if unlike:
        return f"{pair} are no twins: they are tuned on {', '.join(unlike)}."
    tuned = (
        f"{_numbers(one, 'kept')} examples, {_numbers(one, 'supervised_tokens')} supervised "
        f"tokens and {_numbers(one, 'steps')} steps"
    )
    if all(a.objective in b.twins or b.objective in a.twins for a, b in both):
        return f"{pair} are twins: both are tuned on the same {tuned}, matched row by row."
    return f"{pair} are not declared twins; both are tuned on the same file, with {tuned}."


def _numbers(variant: Variant, key: str) -> str:
    values: list[int] = [getattr(one, key) for one in variant.training]
    lowest, highest = min(values), max(values)
    return f"{lowest:,}" if lowest == highest else f"{lowest:,} to {highest:,}"


def seeds_of(count: int) -> str:
    """Return a number of seeds in words, where there are few."""
    return {1: "One seed", 2: "Two seeds"}.get(count, f"{count} seeds")


def _verdict(c: Comparison, confidence: float) -> str:
    p = c.p_value if c.p_holm is None else c.p_holm
    differs = ("higher" if c.delta > 0 else "lower") if p < 1 - confidence else ""
    if c.equivalent:
        return f"{differs} {WITHIN}" if differs else EQUIVALENT
    return differs or INCONCLUSIVE


def _said(same: Sequence[Comparison], lacking: Sequence[str]) -> Iterator[str]:
    """Yield a sentence with the verdict on every benchmark."""
    by_verdict: dict[str, list[str]] = {}
    for c in same:
        by_verdict.setdefault(c.verdict, []).append(c.benchmark)
    parts = [f"{verdict} on {listed(names)}" for verdict, names in by_verdict.items()]
    if lacking:
        parts.append(f"not compared on {listed(lacking)}")
    if parts:
        text = "; ".join(parts)
        yield f"{text[0].upper()}{text[1:]}."


def _equivalence(
    same: Sequence[Comparison],
    lacking: Sequence[str],
    config: ReportConfig,
    shares: Container[tuple[str, str]],
) -> Iterator[str]:
    """Yield whether equivalence holds on all benchmarks, and the margins with their reasons."""
    tested = [c for c in same if c.margin is not None]
    if not tested:
        return
    shown = [c for c in tested if c.equivalent]
    of = len(same) + len(lacking)
    margins = dict.fromkeys(
        number(c.margin or 0.0, (c.benchmark, c.metric) in shares) for c in tested
    )
    within = f"within {' or '.join(margins)} points"
    if len(shown) == of:
        yield f"Equivalent {within} on all {of} benchmarks." if of > 1 else f"Equivalent {within}."
    else:
        yield f"Not equivalent {within}: shown on {len(shown)} of {of} benchmarks."
    metric = tested[0].metric
    keys = dict.fromkeys((*(f"{c.benchmark}/{metric}" for c in tested), metric))
    reasons = dict.fromkeys(
        config.equivalence[key].reason for key in keys if key in config.equivalence
    )
    yield f"Why this margin: {' '.join(reasons)}"


def _power(same: Sequence[Comparison], shares: Container[tuple[str, str]]) -> Iterator[str]:
    """Yield what each comparison that is not significant could have shown."""
    for c in same:
        if c.verdict in (EQUIVALENT, INCONCLUSIVE):
            seeds = "one seed" if c.seeds == 1 else f"{c.seeds} seeds"
            yield (
                f"Not significant on {c.benchmark}: with {c.n:,} prompts ({c.clusters:,} clusters) "
                f"and {seeds}, a difference of "
                f"{number(c.detectable, (c.benchmark, c.metric) in shares)} points would be found "
                "80 % of the time, before Holm's correction."
            )


def _training(same: Sequence[Comparison], shares: Container[tuple[str, str]]) -> Iterator[str]:
    if not same:
        return
    seeds = min(c.seeds for c in same)
    if seeds < SEEDS_TO_VARY:
        yield f"{seeds_of(seeds)}: {NO_VARIATION}; intervals cover the choice of prompts alone."
        return
    spread = ", ".join(
        f"{number(c.seed_sd or 0.0, (c.benchmark, c.metric) in shares)} on {c.benchmark}"
        for c in same
    )
    yield (
        f"{seeds} seeds: intervals cover prompts and seeds. Standard deviation of the difference "
        f"between seeds: {spread}."
    )


def listed(names: Sequence[str]) -> str:
    """Return names as a sentence lists them."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _key(c: Comparison) -> tuple[str, str, str, str]:
    return c.variant, c.baseline, c.benchmark, c.metric


def _holm(p_values: list[float]) -> list[float]:
    if not p_values:
        return []
    from statsmodels.stats.multitest import multipletests

    adjusted: list[float] = multipletests(p_values, method="holm")[1].tolist()
    return adjusted
