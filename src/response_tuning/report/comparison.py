"""Estimates every variant alone, against the baselines, and over doses."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np

from response_tuning.errors import ConfigError
from response_tuning.grid import Place, differing_axis, matching
from response_tuning.metrics import REFUSAL_RATES
from response_tuning.registry import unknown
from response_tuning.report.correction import corrected_results, left_uncorrected
from response_tuning.report.estimates import (
    Contrast,
    Estimate,
    difference,
    estimated,
    mean,
    slope,
)
from response_tuning.report.intervals import detectable, p_equivalence
from response_tuning.report.joined import BenchmarkScores, Variant
from response_tuning.report.metrics import ordered
from response_tuning.report.tables import Comparison, Result, Trend
from response_tuning.report.variance import SEEDS_TO_VARY
from response_tuning.report.verdicts import decided
from response_tuning.report_config import PrimaryConfig, ReportConfig


class Findings(NamedTuple):
    """The rows of all tables, and sentences on scores that could not be compared."""

    results: list[Result]
    comparisons: list[Comparison]
    trends: list[Trend]
    unjoined: list[str]


def check(variants: Sequence[Variant], config: ReportConfig) -> None:
    """Refuse settings that cannot be reported, before a run spends hours on them.

    Raises:
        ConfigError: a baseline or a primary comparison names no variant, or two variants of a
            series have the same dose.
    """
    check_names(places_of(variants), config)
    # Neighbours suffice: the members of a series are sorted by dose.
    for name, members in dose_series(variants).items():
        for one, other in pairwise(members):
            if one.dose == other.dose:
                raise ConfigError(
                    f"series '{name}': '{one.name}' and '{other.name}' have the same dose, "
                    f"{one.dose}; give one of them another series"
                )


def places_of(variants: Sequence[Variant]) -> dict[str, Place]:
    """Return where each variant lies in the grid."""
    return {variant.name: variant.place for variant in variants}


def check_names(places: Mapping[str, Place], config: ReportConfig) -> None:
    """Refuse comparisons of variants that a run does not have.

    ``places`` has every variant; the name of a value in the grid stands for all variants there.

    Raises:
        ConfigError: one line that names the variant and the nearest known one.
    """
    _check_axis([*places], config)
    names = [*dict.fromkeys((*places, *(v for place in places.values() for v in place.values())))]
    for baseline in config.baselines:
        if baseline not in names:
            raise unknown("baseline", baseline, names)
        if baseline not in places and not matching(baseline, places):
            raise ConfigError(f"report.baselines: no variant differs from '{baseline}' alone")
    _check_primary(names, places, config)


def _check_primary(names: Sequence[str], places: Mapping[str, Place], config: ReportConfig) -> None:
    for one in config.primary:
        if one.variant not in names:
            raise unknown("variant in report.primary", one.variant, names)
        if one.baseline not in config.baselines:
            raise unknown("baseline in report.primary", one.baseline, config.baselines or ["none"])
        if one.variant == one.baseline:
            raise ConfigError(f"report.primary: '{one.variant}' is compared with itself")
        if not _between(one, places):
            raise ConfigError(
                f"report.primary: no variants at '{one.variant}' and '{one.baseline}' match"
            )
    seen: set[tuple[frozenset[str], str]] = set()
    for one in with_each_pair(config, places).primary:
        pair = frozenset((one.variant, one.baseline)), one.metric
        if pair in seen:
            raise ConfigError(
                f"report.primary: '{one.variant}' and '{one.baseline}' are compared twice by "
                f"'{one.metric}'; remove one of the two"
            )
        seen.add(pair)


def _check_axis(names: Sequence[str], config: ReportConfig) -> None:
    sizes = {len(arms) for arms in config.axis.values()}
    for name, arms in config.axis.items():
        for arm in arms:
            if arm not in names:
                error = unknown(f"variant in report.axis.{name}", arm, names)
                raise ConfigError(f"{error}; 'report.axis.{name}: null' leaves the entry out")
        if len(arms) < 2 or len(sizes) > 1:
            raise ConfigError(
                f"report.axis.{name}: expected an untuned variant and tuned ones, as many as "
                "under the other names"
            )


def dose_series(variants: Sequence[Variant]) -> dict[str, list[Variant]]:
    """Return the series of at least two doses, each with its lowest dose first."""
    series: dict[str, list[Variant]] = {}
    for variant in sorted(variants, key=lambda v: v.dose or 0):
        if variant.series and variant.dose is not None:
            series.setdefault(variant.series, []).append(variant)
    return {name: members for name, members in series.items() if len(members) > 1}


def pairs(variants: Sequence[Variant], config: ReportConfig) -> list[tuple[str, str]]:
    """Return (baseline, variant) of every comparison, baseline by baseline, each pair once.

    A variant as baseline is compared with all others, and the variants of an entry of
    ``config.axis`` with each other. A value of the grid is compared where the others match. Of two
    baselines, a primary comparison decides which is the baseline; otherwise the first is.
    """
    places = places_of(variants)
    primary = [(one.baseline, one.variant) for one in config.primary]
    every = [
        pair
        for baseline in config.baselines
        for pair in (
            [(baseline, name) for name in places if name != baseline]
            if baseline in places
            else matching(baseline, places)
        )
    ]
    every += [pair for arms in config.axis.values() for pair in combinations(arms, 2)]
    chosen: dict[frozenset[str], tuple[str, str]] = {}
    for pair in (*primary, *every):
        chosen.setdefault(frozenset(pair), pair)
    return [*dict.fromkeys(pair for pair in every if chosen[frozenset(pair)] == pair)]


def with_each_pair(config: ReportConfig, places: Mapping[str, Place]) -> ReportConfig:
    """Return the settings with a primary comparison for each two variants that match in the grid.

    A primary comparison of two values of one axis, such as ``rt`` and ``it``, stands for these.
    """
    primary = [
        one.model_copy(update={"baseline": baseline, "variant": variant})
        for one in config.primary
        for baseline, variant in _between(one, places)
    ]
    return config.model_copy(update={"primary": tuple(primary)})


def _between(one: PrimaryConfig, places: Mapping[str, Place]) -> list[tuple[str, str]]:
    """Return the (baseline, variant) that a primary comparison stands for."""
    if one.baseline not in places:
        every = matching(one.baseline, places)
    elif one.variant in places:
        return [(one.baseline, one.variant)]
    else:
        every = [(one.baseline, name) for name in places]
    return [
        (baseline, name)
        for baseline, name in every
        if name == one.variant
        or places[name].get(differing_axis(places[baseline], places[name]) or "") == one.variant
    ]


def compare(
    benchmarks: Sequence[BenchmarkScores], variants: Sequence[Variant], config: ReportConfig
) -> Findings:
    """Estimate every metric of every variant, its differences from baselines, and its trends."""
    names = [variant.name for variant in variants]
    findings = Findings([], [], [], [])
    for benchmark in benchmarks:
        more = _compare(benchmark, variants, config)
        findings.results.extend(more.results)
        findings.comparisons.extend(more.comparisons)
        findings.trends.extend(more.trends)
        findings.unjoined.extend(more.unjoined)
    findings.results.sort(key=lambda r: names.index(r.variant))
    findings.comparisons[:] = decided(findings.comparisons, config)
    order = pairs(variants, config)
    findings.comparisons.sort(key=lambda c: (not c.primary, order.index((c.baseline, c.variant))))
    known = {
        name
        for benchmark in benchmarks
        for metric in benchmark.metrics
        for name in (metric, f"{benchmark.name}/{metric}")
    }
    findings.unjoined.extend(
        f"Equivalence was not tested by {metric}: no benchmark has that metric."
        for metric in config.equivalence
        if metric not in known
    )
    return findings


def _compare(
    benchmark: BenchmarkScores, variants: Sequence[Variant], config: ReportConfig
) -> Findings:
    names = [variant.name for variant in variants]
    alone = [mean(metric, name) for name in names for metric in benchmark.metrics]
    differences = [
        difference(metric, name, baseline)
        for baseline, name in pairs(variants, config)
        for metric in benchmark.metrics
    ]
    found = {
        contrast: estimate
        for contrast in (*alone, *differences)
        if (estimate := estimated(benchmark, contrast)) is not None
    }
    results = [_result(benchmark, one, found[one], config) for one in alone if one in found]
    results += _totals(benchmark)
    errors = benchmark.display.errors
    uncorrected = [*left_uncorrected(results, errors, config.confidence)]
    results += corrected_results(results, errors, config.confidence)
    order = ordered({result.metric for result in results}, benchmark.display)
    return Findings(
        sorted(results, key=lambda result: order.index(result.metric)),
        [_comparison(benchmark, one, found[one], config) for one in differences if one in found],
        [*_trends(benchmark, variants, config)],
        [*_unjoined(benchmark, differences), *uncorrected],
    )


def _result(
    benchmark: BenchmarkScores, contrast: Contrast, estimate: Estimate, config: ReportConfig
) -> Result:
    (variant,) = contrast.variants
    low, high = estimate.evidence.interval(config.confidence)
    return Result(
        variant, benchmark.name, contrast.metric,
        estimate.value, low, high, estimate.n, estimate.seeds,
        estimate.clusters, estimate.seed_sd, estimate.by_seed,
    )  # fmt: skip


def _totals(benchmark: BenchmarkScores) -> Iterator[Result]:
    """Yield the mean of a total over the seeds, between the means of its limits.

    The interval is as wide as that of a single seed: it covers prompts, not seeds.
    """
    for metric, by_variant in benchmark.totals.items():
        for variant, by_seed in by_variant.items():
            totals = by_seed.values()
            values = tuple(total.value for total in totals)
            n = max(total.n for total in totals)
            yield Result(
                variant, benchmark.name, metric,
                value=fmean(values),
                low=fmean(total.low for total in totals),
                high=fmean(total.high for total in totals),
                n=n,
                seeds=len(totals),
                clusters=n,
                seed_sd=stdev(values) if len(values) > 1 else None,
                seed_values=values,
            )  # fmt: skip


def _comparison(
    benchmark: BenchmarkScores, contrast: Contrast, estimate: Estimate, config: ReportConfig
) -> Comparison:
    """Return a difference, with one interval that decides both of its tests."""
    variant, baseline = contrast.variants
    evidence, margin = estimate.evidence, config.margin(benchmark.name, contrast.metric)
    low, high = evidence.interval(config.confidence)
    p_margin = None if margin is None else p_equivalence(evidence, margin)
    return Comparison(
        baseline, variant, benchmark.name, contrast.metric,
        estimate.value, low, high, evidence.p_value(0.0),
        estimate.n, estimate.seeds, evidence.method,
        margin, p_margin, None if p_margin is None else p_margin < 1 - config.confidence,
        estimate.clusters, estimate.seed_sd, estimate.by_seed,
        detectable(evidence, (low, high), config.confidence),
    )  # fmt: skip


def _trends(
    benchmark: BenchmarkScores, variants: Sequence[Variant], config: ReportConfig
) -> Iterator[Trend]:
    """Estimate the slope of each series with scores at two or more doses.

    It uses the prompts and seeds that all doses share. Every dose is a model of its own, so without
    seeds there is no telling a trend from how training varies, and no test.
    """
    for name, members in dose_series(variants).items():
        for metric in REFUSAL_RATES:
            scored = _scored(benchmark, metric, members)
            if len(scored) < 2:
                continue
            estimate = estimated(benchmark, slope(metric, [v.name for v in scored]))
            if estimate is None:
                continue
            low, high = estimate.evidence.interval(config.confidence)
            tested = estimate.seeds >= SEEDS_TO_VARY
            yield Trend(
                name, benchmark.name, metric,
                tuple(variant.dose or 0 for variant in scored),
                tuple(_value(benchmark, metric, variant.name) for variant in scored),
                estimate.value,
                low if tested else None,
                high if tested else None,
                estimate.evidence.p_value(0.0) if tested else None,
                estimate.n, estimate.clusters, estimate.seeds, estimate.by_seed,
            )  # fmt: skip


def _value(benchmark: BenchmarkScores, metric: str, variant: str) -> float:
    found = estimated(benchmark, mean(metric, variant))
    return float("nan") if found is None else found.value


def _scored(benchmark: BenchmarkScores, metric: str, members: Sequence[Variant]) -> list[Variant]:
    """Return the members of a series with at least one score by a metric."""
    if metric not in benchmark.values:
        return []
    return [v for v in members if np.isfinite(benchmark.of(metric, v.name)).any()]


def _unjoined(benchmark: BenchmarkScores, differences: Sequence[Contrast]) -> Iterator[str]:
    """Yield a sentence for each pair of variants with scores that only one of them has.

    Seeds that only one of them was graded with are no news: ``reading`` names them.
    """
    graded = dict(zip(benchmark.variants, benchmark.graded, strict=True))
    alone: dict[tuple[str, str, int], list[str]] = {}
    for metric, (variant, baseline), _ in differences:
        known = dict(zip(benchmark.variants, benchmark.known(metric), strict=True))
        both = graded[variant] & graded[baseline]
        if count := int((known[variant] ^ known[baseline])[both].sum()):
            alone.setdefault((variant, baseline, count), []).append(metric)
    for (variant, baseline, count), metrics in alone.items():
        yield (
            f"{benchmark.name}, {variant} against {baseline}: {count} scores of one have no "
            f"partner of the same prompt and seed in the other ({', '.join(metrics)})."
        )
