"""Where too many verdicts could not be read, a variant's rates are not known: n/a, not 0."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from response_tuning.metrics import UNREAD_VERDICTS, WITHOUT_VERDICT
from response_tuning.report.joined import BenchmarkScores
from response_tuning.report.tables import Result
from response_tuning.unread import Unread

Unknown = Mapping[tuple[str, str], Unread]
"""(Variant, benchmark) -> how much could not be read, where that is too much."""


def unknown_rates(benchmarks: Sequence[BenchmarkScores]) -> Unknown:
    """Find the variants and benchmarks of which too much could not be read."""
    found = {
        (variant, benchmark.name): _unread(benchmark, place)
        for benchmark in benchmarks
        for place, variant in enumerate(benchmark.variants)
    }
    return {cell: unread for cell, unread in found.items() if unread.too_many}


def without(benchmark: BenchmarkScores, unknown: Unknown) -> BenchmarkScores:
    """Return a benchmark without the rates that are not known."""
    gone = [name for name in benchmark.variants if (name, benchmark.name) in unknown]
    if not gone:
        return benchmark
    rows = [benchmark.variants.index(name) for name in gone]
    values = {}
    for metric, scores in benchmark.values.items():
        if metric not in WITHOUT_VERDICT:
            scores = scores.copy()
            scores[rows] = np.nan
        if np.isfinite(scores).any():
            values[metric] = scores
    totals = {
        metric: {name: found for name, found in by_variant.items() if name not in gone}
        for metric, by_variant in benchmark.totals.items()
    }
    return replace(
        benchmark,
        values=values,
        weights={metric: found for metric, found in benchmark.weights.items() if metric in values},
        totals={metric: found for metric, found in totals.items() if found},
    )


def as_results(benchmarks: Sequence[BenchmarkScores], unknown: Unknown) -> list[Result]:
    """Return the lines of what is not known: every number in them is NaN."""
    nan = float("nan")
    return [
        Result(variant, benchmark.name, metric, nan, nan, nan, unread.of, len(benchmark.seeds))
        for benchmark in benchmarks
        for variant in benchmark.variants
        if (unread := unknown.get((variant, benchmark.name)))
        for metric in benchmark.metrics
        if metric not in WITHOUT_VERDICT and np.isfinite(benchmark.of(metric, variant)).any()
    ]


def sentences(unknown: Unknown) -> list[str]:
    """Say of each what is not known, and how much could not be read."""
    return [
        f"{benchmark}, {variant}: {unread} ({100 * unread.share:.0f} % of verdicts): rates are n/a."
        for (variant, benchmark), unread in unknown.items()
    ]


def _unread(benchmark: BenchmarkScores, place: int) -> Unread:
    lost = whole = 0.0
    count = of = 0
    for metric in UNREAD_VERDICTS:
        if metric in benchmark.values:
            values = benchmark.values[metric][place]
            there = np.isfinite(values)
            weights = benchmark.weights.get(metric)
            weight = np.ones_like(values) if weights is None else weights[place]
            lost += float((values * weight)[there].sum())
            whole += float(weight[there].sum())
            count += int((values[there] > 0).sum())
            of += int(there.sum())
    return Unread(count, of, lost / whole if whole else 0.0)
