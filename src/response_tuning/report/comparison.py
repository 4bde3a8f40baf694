"""Estimates every variant alone, against the baselines, and over doses."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import NamedTuple

import numpy as np

from response_tuning.configs import ReportConfig
from response_tuning.errors import ConfigError
from response_tuning.metrics import REFUSAL_RATES
from response_tuning.registry import unknown
from response_tuning.report.estimates import Quantity, estimated
from response_tuning.report.joined import BenchmarkScores, Variant
from response_tuning.report.metrics import ordered
from response_tuning.report.statistics import (
    Estimate,
    cochran_armitage,
    constant_difference,
    effective,
    mcnemar,
    per_prompt,
    unvaried,
    wilson,
)
from response_tuning.report.tables import Comparison, Result, Trend


class Findings(NamedTuple):
    """The rows of all tables, and sentences on scores that could not be compared."""

    results: list[Result]
    comparisons: list[Comparison]
    trends: list[Trend]
    unjoined: list[str]


def check(variants: Sequence[Variant], config: ReportConfig) -> None:
    """Refuse settings that cannot be reported, before a run spends hours on them.

    Raises:
        ConfigError: a baseline is not a variant, or two variants of a series have the same dose.
    """
    names = [variant.name for variant in variants]
    for baseline in config.baselines:
        if baseline not in names:
            raise unknown("baseline", baseline, names)
    # Neighbours suffice: the members of a series are sorted by dose.
    for name, members in dose_series(variants).items():
        for one, other in pairwise(members):
            if one.dose == other.dose:
                raise ConfigError(
                    f"series '{name}': '{one.name}' and '{other.name}' have the same dose, "
                    f"{one.dose}; give one of them another series"
                )


def dose_series(variants: Sequence[Variant]) -> dict[str, list[Variant]]:
    """Return the series of at least two doses, each with its lowest dose first."""
    series: dict[str, list[Variant]] = {}
    for variant in sorted(variants, key=lambda v: v.dose or 0):
        if variant.series and variant.dose is not None:
            series.setdefault(variant.series, []).append(variant)
    return {name: members for name, members in series.items() if len(members) > 1}


def compare(
    benchmarks: Sequence[BenchmarkScores], variants: Sequence[Variant], config: ReportConfig
) -> Findings:
    """Estimate every metric of every variant, its differences from baselines, and its trends."""
    names = [variant.name for variant in variants]
    # Tables go variant by variant, but estimates benchmark by benchmark, whose metrics share draws.
    findings = Findings([], [], [], [])
    for benchmark in benchmarks:
        more = _compare(benchmark, variants, config)
        findings.results.extend(more.results)
        findings.comparisons.extend(more.comparisons)
        findings.trends.extend(more.trends)
        findings.unjoined.extend(more.unjoined)
    findings.results.sort(key=lambda r: names.index(r.variant))
    findings.comparisons.sort(
        key=lambda c: (config.baselines.index(c.baseline), names.index(c.variant))
    )
    known = {metric for benchmark in benchmarks for metric in benchmark.metrics}
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
    series = dose_series(variants)
    means = [Quantity(metric, name) for name in names for metric in benchmark.metrics]
    differences = [
        Quantity(metric, name, baseline)
        for baseline in config.baselines
        for name in names
        for metric in benchmark.metrics
        if name != baseline
    ]
    steps = [
        Quantity(metric, after.name, before.name)
        for members in series.values()
        for metric in REFUSAL_RATES
        for before, after in pairwise(_scored(benchmark, metric, members))
    ]
    # One call for all, so that quantities of the same items share their resamples: a difference and
    # the two means that it is made of then agree.
    estimates = estimated(benchmark, dict.fromkeys([*means, *differences, *steps]), config)
    compared = {
        quantity: _comparison(benchmark, quantity, estimate, config)
        for quantity, estimate in estimates.items()
        if quantity.baseline
    }
    results = [_result(benchmark, q, estimates[q], config) for q in means if q in estimates]
    results += _totals(benchmark)
    order = ordered({result.metric for result in results}, benchmark.display)
    return Findings(
        sorted(results, key=lambda result: order.index(result.metric)),
        [compared[quantity] for quantity in differences if quantity in compared],
        [*_trends(benchmark, series, compared, config)],
        [*_unjoined(benchmark, differences), *_undefined(benchmark, estimates, config)],
    )


def _result(
    benchmark: BenchmarkScores, quantity: Quantity, estimate: Estimate, config: ReportConfig
) -> Result:
    """Return a mean or a ratio with its interval.

    A mean uses Wilson's interval when there is one seed and every score is 0 or 1. Otherwise it
    uses a bootstrap over prompts, each with its mean over the seeds. If all prompts have the same
    mean, there is nothing to resample, and Wilson's interval for n distinct prompts is used again.
    A ratio uses a bootstrap over prompts; if all resamples agree, see ``unvaried``.
    """
    metric = quantity.metric
    constant = estimate.constant and metric in benchmark.shares
    seeds = quantity.seeds(benchmark)
    if metric in benchmark.ratios:
        estimate = unvaried(estimate, 0.0, config) if constant else estimate
    elif constant or (seeds == 1 and metric in benchmark.binary):
        low, high = wilson(round(estimate.value * estimate.n), estimate.n, config.confidence)
        estimate = estimate._replace(low=low, high=high)
    return Result(
        quantity.variant,
        benchmark.name,
        metric,
        estimate.value,
        estimate.low,
        estimate.high,
        estimate.n,
        seeds,
    )


def _totals(benchmark: BenchmarkScores) -> Iterator[Result]:
    """Yield the mean of a total over the seeds, between the means of its limits.

    The interval is as wide as that of a single seed, so it is conservative.
    """
    for metric, by_variant in benchmark.totals.items():
        for variant, totals in by_variant.items():
            yield Result(
                variant, benchmark.name, metric,
                value=fmean(total.value for total in totals),
                low=fmean(total.low for total in totals),
                high=fmean(total.high for total in totals),
                n=max(total.n for total in totals),
                seeds=len(totals),
            )  # fmt: skip


def _comparison(
    benchmark: BenchmarkScores, quantity: Quantity, estimate: Estimate, config: ReportConfig
) -> Comparison:
    """Return a difference with its interval and its tests.

    The interval and the equivalence test use a bootstrap over prompts; if all prompts differ by the
    same value, see ``constant_difference``. The p-value is McNemar's when there is one seed and
    every score is 0 or 1, unless the metric is a ratio.
    """
    metric = quantity.metric
    if estimate.constant and metric in benchmark.shares:
        estimate = constant_difference(estimate, config)
    seeds = quantity.seeds(benchmark)
    method, p_value = "cluster-bootstrap", estimate.p_value
    if seeds == 1 and metric in benchmark.binary - benchmark.ratios:
        difference = quantity.of(benchmark)
        method = "mcnemar-exact"
        p_value = mcnemar(int((difference > 0).sum()), int((difference < 0).sum()))
    tested = metric in config.equivalence
    return Comparison(
        quantity.baseline or "", quantity.variant, benchmark.name, metric,
        estimate.value, estimate.low, estimate.high, p_value, estimate.n, seeds, method,
        margin=config.margin if tested else None,
        p_equivalence=estimate.p_equivalence if tested else None,
        equivalent=estimate.p_equivalence < 1 - config.confidence if tested else None,
    )  # fmt: skip


def _trends(
    benchmark: BenchmarkScores,
    series: Mapping[str, Sequence[Variant]],
    compared: Mapping[Quantity, Comparison],
    config: ReportConfig,
) -> Iterator[Trend]:
    """Test each series with scores at two or more doses, on the prompts that all doses share."""
    for name, members in series.items():
        for metric in REFUSAL_RATES:
            scored = _scored(benchmark, metric, members)
            if len(scored) < 2:
                continue
            # (doses, 2, prompts): numerator and denominator; a prompt counts if every dose has it.
            parts = np.stack([per_prompt(benchmark.parts(metric, v.name)) for v in scored])
            above, weights = parts[:, :, np.isfinite(parts).all(axis=(0, 1))].swapaxes(0, 1)
            if not weights.any(axis=1).all():
                continue
            n = int(weights.any(axis=0).sum())
            doses = [variant.dose or 0 for variant in scored]
            values = (above.sum(axis=1) / weights.sum(axis=1)).tolist()
            z, p = cochran_armitage(doses, values, [*map(effective, weights)])
            steps = (compared[Quantity(metric, b.name, a.name)] for a, b in pairwise(scored))
            drop = any(step.delta < 0 and step.p_value < 1 - config.confidence for step in steps)
            yield Trend(name, benchmark.name, metric, (*doses,), (*values,), z, p, n, drop)


def _scored(benchmark: BenchmarkScores, metric: str, members: Sequence[Variant]) -> list[Variant]:
    """Return the members of a series with at least one score by a metric."""
    if metric not in benchmark.values:
        return []
    return [v for v in members if np.isfinite(benchmark.of(metric, v.name)).any()]


def _unjoined(benchmark: BenchmarkScores, differences: Sequence[Quantity]) -> Iterator[str]:
    """Yield a sentence for each pair of variants with scores that only one of them has."""
    alone: dict[tuple[str, str, int], list[str]] = {}
    for metric, variant, baseline in differences:
        known = dict(zip(benchmark.variants, benchmark.known(metric), strict=True))
        one, other = known[variant], known[baseline or ""]
        if count := int((one ^ other).sum()):
            alone.setdefault((variant, baseline or "", count), []).append(metric)
    for (variant, baseline, count), metrics in alone.items():
        yield (
            f"{benchmark.name}, {variant} against {baseline}: {count} scores of one have no "
            f"partner of the same prompt and seed in the other ({', '.join(metrics)})."
        )


def _undefined(
    benchmark: BenchmarkScores, estimates: Mapping[Quantity, Estimate], config: ReportConfig
) -> Iterator[str]:
    """Yield a sentence for each ratio that some resamples do not have."""
    for (metric, variant, baseline), estimate in estimates.items():
        if estimate.undefined:
            pair = f"{variant} against {baseline}" if baseline else variant
            yield (
                f"{benchmark.name}, {pair}: {estimate.undefined:,} of {config.resamples:,} "
                f"resamples were left out of {metric}: none of their answers counts."
            )
