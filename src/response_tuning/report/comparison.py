"""What scores say: every variant by itself, against the baselines, and over doses."""

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
    """The lines of all tables, and sentences on what could not be joined."""

    results: list[Result]
    comparisons: list[Comparison]
    trends: list[Trend]
    unjoined: list[str]


def check(variants: Sequence[Variant], config: ReportConfig) -> None:
    """Refuse what cannot be reported, before hours are spent on it.

    Raises:
        ConfigError: a baseline is no variant, or two variants of a series have the same dose.
    """
    names = [variant.name for variant in variants]
    for baseline in config.baselines:
        if baseline not in names:
            raise unknown("baseline", baseline, names)
    for name, members in dose_series(variants).items():
        for one, other in pairwise(members):
            if one.dose == other.dose:
                raise ConfigError(
                    f"series '{name}': '{one.name}' and '{other.name}' have the same dose, "
                    f"{one.dose}; give one of them another series"
                )


def dose_series(variants: Sequence[Variant]) -> dict[str, list[Variant]]:
    """Return the series of at least two doses, each with its lowest dose first."""
    found: dict[str, list[Variant]] = {}
    for variant in sorted(variants, key=lambda v: v.dose or 0):
        if variant.series and variant.dose is not None:
            found.setdefault(variant.series, []).append(variant)
    return {name: members for name, members in found.items() if len(members) > 1}


def compare(
    benchmarks: Sequence[BenchmarkScores], variants: Sequence[Variant], config: ReportConfig
) -> Findings:
    """Estimate every metric of every variant, its differences from baselines, and its trends."""
    names = [variant.name for variant in variants]
    found = Findings([], [], [], [])
    for benchmark in benchmarks:
        more = _compare(benchmark, variants, config)
        found.results.extend(more.results)
        found.comparisons.extend(more.comparisons)
        found.trends.extend(more.trends)
        found.unjoined.extend(more.unjoined)
    found.results.sort(key=lambda r: names.index(r.variant))
    found.comparisons.sort(
        key=lambda c: (config.baselines.index(c.baseline), names.index(c.variant))
    )
    known = {metric for benchmark in benchmarks for metric in benchmark.metrics}
    found.unjoined.extend(
        f"Equivalence by {metric} was to be tested, but no benchmark has that metric."
        for metric in config.equivalence
        if metric not in known
    )
    return found


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
    benchmark: BenchmarkScores, quantity: Quantity, found: Estimate, config: ReportConfig
) -> Result:
    """Give a mean or a ratio its interval.

    That of a mean is Wilson's where there is one seed and every score is 0 or 1, and otherwise from
    a bootstrap of prompts, each with its mean over the seeds. Where all prompts have one and the
    same mean, so that there is nothing to resample, it is again Wilson's, with n distinct prompts.
    That of a ratio is from a bootstrap of prompts; where all resamples agree, from the chance of
    seeing nothing else.
    """
    metric = quantity.metric
    constant = found.constant and metric in benchmark.shares
    seeds = quantity.seeds(benchmark)
    if metric in benchmark.ratios:
        found = unvaried(found, 0.0, config) if constant else found
    elif constant or (seeds == 1 and metric in benchmark.binary):
        low, high = wilson(round(found.value * found.n), found.n, config.confidence)
        found = found._replace(low=low, high=high)
    return Result(
        quantity.variant, benchmark.name, metric, found.value, found.low, found.high, found.n, seeds
    )


def _totals(benchmark: BenchmarkScores) -> Iterator[Result]:
    """Give the mean of a total over the seeds, between the means of its limits.

    Such an interval is as wide as that of one seed, so it is conservative.
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
    benchmark: BenchmarkScores, quantity: Quantity, found: Estimate, config: ReportConfig
) -> Comparison:
    """Give a difference its interval and its tests.

    The interval and the equivalence test are from a bootstrap of prompts; where all prompts differ
    by one and the same value, from the chance of seeing no other. The p-value is McNemar's where
    there is one seed and every score is 0 or 1, unless the metric is a ratio.
    """
    metric = quantity.metric
    if found.constant and metric in benchmark.shares:
        found = constant_difference(found, config)
    seeds = quantity.seeds(benchmark)
    method, p_value = "cluster-bootstrap", found.p_value
    if seeds == 1 and metric in benchmark.binary - benchmark.ratios:
        difference = quantity.of(benchmark)
        method = "mcnemar-exact"
        p_value = mcnemar(int((difference > 0).sum()), int((difference < 0).sum()))
    tested = metric in config.equivalence
    return Comparison(
        quantity.baseline or "", quantity.variant, benchmark.name, metric,
        found.value, found.low, found.high, p_value, found.n, seeds, method,
        margin=config.margin if tested else None,
        p_equivalence=found.p_equivalence if tested else None,
        equivalent=found.p_equivalence < 1 - config.confidence if tested else None,
    )  # fmt: skip


def _trends(
    benchmark: BenchmarkScores,
    series: Mapping[str, Sequence[Variant]],
    compared: Mapping[Quantity, Comparison],
    config: ReportConfig,
) -> Iterator[Trend]:
    """Test each series that has two doses with scores, on the prompts that all of them have."""
    for name, members in series.items():
        for metric in REFUSAL_RATES:
            scored = _scored(benchmark, metric, members)
            if len(scored) < 2:
                continue
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
    """Return the members of a series that have any score by a metric."""
    if metric not in benchmark.values:
        return []
    return [v for v in members if np.isfinite(benchmark.of(metric, v.name)).any()]


def _unjoined(benchmark: BenchmarkScores, differences: Sequence[Quantity]) -> Iterator[str]:
    """Count the scores that only one of a pair has."""
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
    """Count the resamples that had no ratio."""
    for (metric, variant, baseline), found in estimates.items():
        if found.undefined:
            pair = f"{variant} against {baseline}" if baseline else variant
            yield (
                f"{benchmark.name}, {pair}: {found.undefined:,} of {config.resamples:,} resamples "
                f"were left out of {metric}, for no answer in them counts."
            )
