"""Rates with too many unread verdicts are not known: the report shows n/a, not 0."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from response_tuning.metrics import UNREAD_VERDICTS, WITHOUT_VERDICT
from response_tuning.report.joined import BenchmarkScores
from response_tuning.report.tables import Result
from response_tuning.unread import Unread

UnknownRates = Mapping[tuple[str, str], Unread]
"""(Variant, benchmark) -> its unread verdicts, where there are too many."""


def unknown_rates(benchmarks: Sequence[BenchmarkScores]) -> UnknownRates:
    """Return the variants and benchmarks with too many unread verdicts."""
    by_cell = {
        (variant, benchmark.name): _unread(benchmark, place)
        for benchmark in benchmarks
        for place, variant in enumerate(benchmark.variants)
    }
    return {cell: unread for cell, unread in by_cell.items() if unread.too_many}


def without(benchmark: BenchmarkScores, unknown: UnknownRates) -> BenchmarkScores:
    """Return a benchmark without its unknown rates."""
    gone = [name for name in benchmark.variants if (name, benchmark.name) in unknown]
    if not gone:
        return benchmark
    rows = [benchmark.variants.index(name) for name in gone]
    values = {}
    for metric, scores in benchmark.values.items():
        if metric not in WITHOUT_VERDICT:
            scores = scores.copy()  # the browser of prompts still shows every verdict
            scores[rows] = np.nan
        if np.isfinite(scores).any():
            values[metric] = scores
    totals = {
        metric: {name: kept for name, kept in by_variant.items() if name not in gone}
        for metric, by_variant in benchmark.totals.items()
    }
    return replace(
        benchmark,
        values=values,
        weights={metric: kept for metric, kept in benchmark.weights.items() if metric in values},
        totals={metric: kept for metric, kept in totals.items() if kept},
    )


def as_results(benchmarks: Sequence[BenchmarkScores], unknown: UnknownRates) -> list[Result]:
    """Return the rows of unknown rates, whose numbers are NaN."""
    nan = float("nan")
    return [
        Result(
            variant,
            benchmark.name,
            metric,
            nan,
            nan,
            nan,
            n=unread.of,
            seeds=len(benchmark.seeds),
            clusters=unread.of,
            seed_sd=None,
            seed_values=(),
        )
        for benchmark in benchmarks
        for variant in benchmark.variants
        if (unread := unknown.get((variant, benchmark.name)))
        for metric in benchmark.metrics
        if metric not in WITHOUT_VERDICT and np.isfinite(benchmark.of(metric, variant)).any()
    ]


def sentences(unknown: UnknownRates) -> list[str]:
    """Return a sentence for each variant and benchmark with unknown rates."""
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
            scored = np.isfinite(values)
            weights = benchmark.weights.get(metric)
            weight = np.ones_like(values) if weights is None else weights[place]
            lost += float((values * weight)[scored].sum())
            whole += float(weight[scored].sum())
            count += int((values[scored] > 0).sum())
            of += int(scored.sum())
    return Unread(count, of, lost / whole if whole else 0.0)
