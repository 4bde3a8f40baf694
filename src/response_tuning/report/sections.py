"""The section of the page on each benchmark: what its tables show, and what is folded away."""

from collections.abc import Collection, Sequence
from math import isnan
from typing import NamedTuple

import numpy as np

from response_tuning.metrics import FILTERED
from response_tuning.report.comparison import Findings
from response_tuning.report.joined import BenchmarkScores
from response_tuning.report.metrics import headline
from response_tuning.report.tables import Comparison, Result, metrics_by_benchmark
from response_tuning.report.variance import per_prompt
from response_tuning.report.verdicts import INCONCLUSIVE

METRICS_PER_TABLE = 8
"""Most metrics beside each other: a table of more does not fit a page of 1,280 pixels."""


class Group(NamedTuple):
    """The results of all variants on one group of a benchmark."""

    name: str
    n: int
    means: dict[tuple[str, str], float]
    """(Variant, metric) -> mean over prompts, or ratio."""


class Section(NamedTuple):
    """What the page shows on one benchmark."""

    benchmark: str
    variants: list[str]
    """Those with a result, in the order of the report."""
    size: str
    """Its prompts, clusters and seeds."""
    shown: list[list[str]]
    """Metrics of each table."""
    compared: list[list[str]]
    """Those of them that are compared: totals are not."""
    silent: list[str]
    """Metrics of the headline that tell no two variants apart."""
    further: list[str]
    """Metrics outside the headline."""
    groups: list[Group]
    """Empty if there is only one group."""
    families: bool
    """Whether the groups are shown as families of questions, shaded by accuracy."""
    group_metrics: list[str]


def sections(
    benchmarks: Sequence[BenchmarkScores], findings: Findings, primary: Collection[str]
) -> list[Section]:
    """Return the section on each benchmark; the ``primary`` metrics are never folded away."""
    metrics = metrics_by_benchmark(findings.results)
    found = []
    for benchmark in benchmarks:
        results = [r for r in findings.results if r.benchmark == benchmark.name]
        every = metrics.get(benchmark.name, [])
        first = headline(every, benchmark.display)
        kept = {*first[:1], *primary, FILTERED}
        silent = [
            metric
            for metric in first
            if metric not in kept and is_silent(metric, results, findings.comparisons)
        ]
        shown = [metric for metric in first if metric not in silent]
        wanted = benchmark.accuracy or _with_scores(benchmark)
        groups = _groups(benchmark, wanted)
        names = {r.variant for r in results}
        found.append(
            Section(
                benchmark.name,
                [name for name in benchmark.variants if name in names],
                _size(results),
                _tables(shown),
                _tables([metric for metric in shown if metric in benchmark.values]),
                silent,
                [metric for metric in every if metric not in first],
                groups if len(groups) > 1 else [],
                bool(benchmark.accuracy),
                [*wanted],
            )
        )
    return found


def is_silent(metric: str, results: Sequence[Result], comparisons: Sequence[Comparison]) -> bool:
    """Whether a metric tells no two variants of a benchmark apart.

    That is so if all intervals overlap and no comparison has a verdict. ``results`` are those of
    the benchmark. An unknown rate is never silent.
    """
    of_it = [r for r in results if r.metric == metric]
    if len(of_it) < 2 or any(isnan(r.value) for r in of_it):
        return False
    same = max(r.low for r in of_it) <= min(r.high for r in of_it)
    decided = (
        c.verdict != INCONCLUSIVE
        for c in comparisons
        if (c.benchmark, c.metric) == (of_it[0].benchmark, metric)
    )
    return same and not any(decided)


def _tables(metrics: Sequence[str]) -> list[list[str]]:
    starts = range(0, len(metrics), METRICS_PER_TABLE)
    return [[*metrics[start : start + METRICS_PER_TABLE]] for start in starts]


def _size(results: Sequence[Result]) -> str:
    """Return the prompts, clusters and seeds of the results, as ranges where they differ."""
    parts = []
    for name in ("n", "clusters", "seeds"):
        values = [getattr(r, name) for r in results]
        low, high = min(values, default=0), max(values, default=0)
        word = {"n": "prompts", "clusters": "clusters", "seeds": "seeds"}[name]
        shown = f"{low:,}" if low == high else f"{low:,} to {high:,}"
        parts.append(f"{shown} {word.removesuffix('s') if high == 1 else word}")
    return ", ".join(parts)


def _groups(benchmark: BenchmarkScores, wanted: Sequence[str]) -> list[Group]:
    """Return the groups of a benchmark with at least one of the ``wanted`` metrics."""
    # (2, items) of each: sums of numerators over sums of denominators give means and ratios alike.
    parts = {
        (variant, metric): per_prompt(benchmark.parts(metric, variant))
        for variant in benchmark.variants
        for metric in wanted
        if metric in benchmark.values
    }
    group_of = np.array(benchmark.groups)
    groups = []
    for name in sorted({*benchmark.groups}):
        inside = group_of == name
        sums = {
            cell: part[:, inside & np.isfinite(part[0])].sum(axis=1) for cell, part in parts.items()
        }
        means = {cell: float(above / weight) for cell, (above, weight) in sums.items() if weight}
        if means:
            groups.append(Group(name, int(inside.sum()), means))
    return groups


def _with_scores(benchmark: BenchmarkScores) -> list[str]:
    """Return the headline without totals, which are not compared and have no groups."""
    return [metric for metric in benchmark.headline if metric in benchmark.values]
