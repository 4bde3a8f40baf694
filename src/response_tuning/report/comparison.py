"""What scores say: every variant by itself, against the baselines, and over doses."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from response_tuning.artifacts import digest
from response_tuning.configs import ReportConfig
from response_tuning.errors import ConfigError
from response_tuning.registry import unknown
from response_tuning.report.scores import TREND, Benchmark, Variant
from response_tuning.report.statistics import (
    Array,
    Estimate,
    bootstrap,
    cochran_armitage,
    constant_difference,
    mcnemar,
    per_prompt,
    wilson,
)
from response_tuning.report.tables import Comparison, Result, Trend


class Findings(NamedTuple):
    """The lines of all tables, and sentences on what could not be joined."""

    results: list[Result]
    comparisons: list[Comparison]
    trends: list[Trend]
    unjoined: list[str]


class _Quantity(NamedTuple):
    """A metric of a variant or, with a baseline, how much it is above the baseline's."""

    metric: str
    variant: str
    baseline: str | None = None

    def of(self, benchmark: Benchmark) -> Array:
        """Return an array (seeds, items); NaN where there is no score, or one of two only."""
        scores = benchmark.of(self.metric, self.variant)
        return scores - benchmark.of(self.metric, self.baseline) if self.baseline else scores


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
    benchmarks: Sequence[Benchmark], variants: Sequence[Variant], config: ReportConfig
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


def _compare(benchmark: Benchmark, variants: Sequence[Variant], config: ReportConfig) -> Findings:
    names = [variant.name for variant in variants]
    series = dose_series(variants)
    means = [_Quantity(metric, name) for name in names for metric in benchmark.metrics]
    differences = [
        _Quantity(metric, name, baseline)
        for baseline in config.baselines
        for name in names
        for metric in benchmark.metrics
        if name != baseline
    ]
    steps = [
        _Quantity(metric, after.name, before.name)
        for members in series.values()
        for metric in TREND
        for before, after in pairwise(_scored(benchmark, metric, members))
    ]
    estimates = _estimated(benchmark, dict.fromkeys([*means, *differences, *steps]), config)
    compared = {
        quantity: _comparison(benchmark, quantity, estimate, config)
        for quantity, estimate in estimates.items()
        if quantity.baseline
    }
    return Findings(
        [_result(benchmark, q, estimates[q], config) for q in means if q in estimates],
        [compared[quantity] for quantity in differences if quantity in compared],
        [*_trends(benchmark, series, compared, config)],
        [*_unjoined(benchmark, differences)],
    )


def _estimated(
    benchmark: Benchmark, quantities: Iterable[_Quantity], config: ReportConfig
) -> dict[_Quantity, Estimate]:
    """Estimate the quantities that have any value.

    Those of the same items share their resamples, which are drawn from the seed and the names of
    these items alone.
    """
    together: dict[bytes, dict[_Quantity, Array]] = {}
    for quantity in quantities:
        units = per_prompt(quantity.of(benchmark))
        there = np.isfinite(units)
        if there.any():
            together.setdefault(there.tobytes(), {})[quantity] = units
    found: dict[_Quantity, Estimate] = {}
    for columns in together.values():
        units = np.column_stack([*columns.values()])
        there = np.flatnonzero(np.isfinite(units[:, 0]))
        names = digest(benchmark.name, *(benchmark.items[place] for place in there))
        rng = np.random.default_rng([config.seed, int(names, base=16)])
        found |= dict(zip(columns, bootstrap(units[there], config, rng), strict=True))
    return found


def _result(
    benchmark: Benchmark, quantity: _Quantity, found: Estimate, config: ReportConfig
) -> Result:
    """Give a mean its interval.

    It is Wilson's where there is one seed and every score is 0 or 1, and otherwise from a bootstrap
    of prompts, each with its mean over the seeds. Where all prompts have one and the same mean, so
    that there is nothing to resample, it is again Wilson's, with n distinct prompts.
    """
    low, high = found.low, found.high
    seeds = _seeds(quantity.of(benchmark))
    drawn_once = seeds == 1 and quantity.metric in benchmark.binary
    if drawn_once or (found.constant and quantity.metric in benchmark.shares):
        low, high = wilson(round(found.value * found.n), found.n, config.confidence)
    return Result(
        quantity.variant, benchmark.name, quantity.metric,
        found.value, low, high, found.n, seeds,
    )  # fmt: skip


def _comparison(
    benchmark: Benchmark, quantity: _Quantity, found: Estimate, config: ReportConfig
) -> Comparison:
    """Give a difference its interval and its tests.

    The interval and the equivalence test are from a bootstrap of prompts; where all prompts differ
    by one and the same value, from the chance of seeing no other. The p-value is McNemar's where
    there is one seed and every score is 0 or 1.
    """
    metric, difference = quantity.metric, quantity.of(benchmark)
    if found.constant and metric in benchmark.shares:
        found = constant_difference(found.value, found.n, config)
    seeds = _seeds(difference)
    method, p_value = "cluster-bootstrap", found.p_value
    if seeds == 1 and metric in benchmark.binary:
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
    benchmark: Benchmark,
    series: Mapping[str, Sequence[Variant]],
    compared: Mapping[_Quantity, Comparison],
    config: ReportConfig,
) -> Iterator[Trend]:
    """Test each series that has two doses with scores, on the prompts that all of them have."""
    for name, members in series.items():
        for metric in TREND:
            scored = _scored(benchmark, metric, members)
            units = [per_prompt(benchmark.of(metric, variant.name)) for variant in scored]
            shared = np.isfinite(units).all(axis=0)
            n = int(shared.sum())
            if len(scored) < 2 or not n:
                continue
            doses = [variant.dose or 0 for variant in scored]
            values = [float(found[shared].mean()) for found in units]
            z, p = cochran_armitage(doses, values, [n] * len(doses))
            steps = (compared[_Quantity(metric, b.name, a.name)] for a, b in pairwise(scored))
            drop = any(step.delta < 0 and step.p_value < 1 - config.confidence for step in steps)
            yield Trend(name, benchmark.name, metric, (*doses,), (*values,), z, p, n, drop)


def _scored(benchmark: Benchmark, metric: str, members: Sequence[Variant]) -> list[Variant]:
    """Return the members of a series that have any score by a metric."""
    if metric not in benchmark.values:
        return []
    return [v for v in members if np.isfinite(benchmark.of(metric, v.name)).any()]


def _unjoined(benchmark: Benchmark, differences: Sequence[_Quantity]) -> Iterator[str]:
    """Count the scores that only one of a pair has."""
    alone: dict[tuple[str, str, int], list[str]] = {}
    for metric, variant, baseline in differences:
        one, other = (np.isfinite(benchmark.of(metric, name)) for name in (variant, baseline or ""))
        if count := int((one ^ other).sum()):
            alone.setdefault((variant, baseline or "", count), []).append(metric)
    for (variant, baseline, count), metrics in alone.items():
        yield (
            f"{benchmark.name}, {variant} against {baseline}: {count} scores of one have no "
            f"partner of the same prompt and seed in the other ({', '.join(metrics)})."
        )


def _seeds(values: Array) -> int:
    return int(np.isfinite(values).any(axis=1).sum())
