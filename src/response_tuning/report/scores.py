"""What is compared, and every score of a run, joined by benchmark, metric and item."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from response_tuning.artifacts import Score, read_jsonl
from response_tuning.errors import DataError
from response_tuning.report.statistics import Array

HEADLINE = ("strict", "correct", "stopped", "refusal", "false_refusal")
"""Metrics that tables show first; of a benchmark that has none of them, they show all."""
ACCURACY = ("strict", "correct")
"""Metrics that the accuracy plot and the table by family show."""
TREND = ("refusal", "false_refusal")
"""Metrics that may change with the number of refusals among the examples."""


@dataclass(frozen=True)
class Variant:
    """One arm of an experiment, under the name of its folder."""

    name: str
    label: str
    """One line that says what it is."""
    series: str = ""
    """Variants of one series differ only in their ``dose``; empty: part of none."""
    dose: int | None = None
    """Number of refusals among the examples; None: part of no series."""


@dataclass(frozen=True)
class Benchmark:
    """All scores of one benchmark."""

    name: str
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    items: tuple[str, ...]
    """Sorted, so that nothing depends on the order in which variants are named."""
    groups: tuple[str, ...]
    """The group of each item."""
    values: Mapping[str, Array]
    """Metric -> array (variants, seeds, items); NaN where there is no score."""

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Names of metrics, those of the headline first."""
        first = [name for name in HEADLINE if name in self.values]
        return (*first, *sorted(self.values.keys() - first))

    @cached_property
    def headline(self) -> tuple[str, ...]:
        """The metrics that tables show."""
        return headline(self.metrics)

    @cached_property
    def binary(self) -> frozenset[str]:
        """The metrics that are 0 or 1 wherever they are scored."""
        return frozenset(
            name
            for name, values in self.values.items()
            if np.isin(values[np.isfinite(values)], (0, 1)).all()
        )

    @cached_property
    def shares(self) -> frozenset[str]:
        """The metrics that stay between 0 and 1."""
        return frozenset(
            name
            for name, values in self.values.items()
            if np.nanmin(values) >= 0 and np.nanmax(values) <= 1
        )

    def of(self, metric: str, variant: str) -> Array:
        """Return an array (seeds, items)."""
        found: Array = self.values[metric][self.variants.index(variant)]
        return found


def headline(metrics: Sequence[str]) -> tuple[str, ...]:
    """Return those of a benchmark's metrics that tables show."""
    return tuple(name for name in HEADLINE if name in metrics) or tuple(metrics)


@dataclass(frozen=True)
class _File:
    """The scores of one benchmark by one variant and seed."""

    variant: str
    seed: int
    path: Path


def seed_folders(run: Path, variant: str) -> list[tuple[int, Path]]:
    """Return the seeds of a variant and their folders, lowest seed first."""
    named = ((re.fullmatch(r"seed-(\d+)", p.name), p) for p in (run / variant).glob("seed-*"))
    return sorted((int(match[1]), path) for match, path in named if match)


def read_scores(
    run: Path,
    variants: Sequence[str],
    seeds: Sequence[int] | None = None,
    benchmarks: Sequence[str] | None = None,
) -> tuple[list[Benchmark], list[str]]:
    """Read every ``grade/*.jsonl`` below ``run``, and sentences on what is missing from them.

    With ``seeds`` and ``benchmarks``, others, which an earlier run may have left, are not read; and
    the benchmarks come in that order, otherwise those with an accuracy first.

    Raises:
        DataError: there are no scores; or a file has two scores of one item by one metric, or one
            that is no finite number.
    """
    files = [
        _File(variant, seed, path)
        for variant in variants
        for seed, folder in seed_folders(run, variant)
        if seeds is None or seed in seeds
        for path in sorted((folder / "grade").glob("*.jsonl"))
        if benchmarks is None or path.stem in benchmarks
    ]
    if not files:
        raise DataError(
            f"{run}: no variant has scores in seed-*/grade/*.jsonl; grade the run first"
        )
    found = [
        _joined(name, [file for file in files if file.path.stem == name], tuple(variants))
        for name in sorted({file.path.stem for file in files})
    ]
    found.sort(
        key=lambda one: (
            benchmarks.index(one.name) if benchmarks else not {*ACCURACY} & {*one.metrics}
        )
    )
    missing = [*_ungraded(run, variants, files)]
    for benchmark in found:
        missing += _gaps(benchmark)
    return found, missing


def _joined(name: str, files: Sequence[_File], variants: tuple[str, ...]) -> Benchmark:
    groups: dict[str, str] = {}  # item -> group, in the order in which items are first seen
    cells = {(file.variant, file.seed): _read(file.path, groups) for file in files}
    seeds = tuple(sorted({seed for _, seed in cells}))
    metrics = {metric for found in cells.values() for metric in found}
    values = {m: np.full((len(variants), len(seeds), len(groups)), np.nan) for m in metrics}
    for (variant, seed), found in cells.items():
        for metric, (places, numbers) in found.items():
            values[metric][variants.index(variant), seeds.index(seed), places] = numbers
    items = sorted(groups)
    position = {item: place for place, item in enumerate(groups)}
    order = [position[item] for item in items]
    return Benchmark(
        name=name,
        variants=variants,
        seeds=seeds,
        items=tuple(items),
        groups=tuple(groups[item] for item in items),
        values={metric: array[:, :, order] for metric, array in values.items()},
    )


def _read(path: Path, groups: dict[str, str]) -> dict[str, tuple[npt.NDArray[np.int64], Array]]:
    """Return metric -> (places of items in ``groups``, values); new items are added to it."""
    position = {item: place for place, item in enumerate(groups)}
    found: dict[str, dict[int, float]] = {}
    for score in read_jsonl(path, Score):
        place = position.setdefault(score.item_id, len(position))
        groups[score.item_id] = groups.get(score.item_id) or score.group
        numbers = found.setdefault(score.metric, {})
        if place in numbers or not np.isfinite(score.value):
            fault = "a second score" if place in numbers else f"the score {score.value}"
            raise DataError(
                f"{path}: {fault} of item '{score.item_id}' by '{score.metric}'; grade it again"
            )
        numbers[place] = score.value
    return {
        metric: (np.fromiter(numbers, int), np.fromiter(numbers.values(), float))
        for metric, numbers in found.items()
    }


def _ungraded(run: Path, variants: Sequence[str], files: Sequence[_File]) -> Iterator[str]:
    graded = {file.variant for file in files}
    for variant in variants:
        if variant not in graded:
            yield f"{variant} has no scores, so it is in no table."
    found = {path.parents[2].name for path in run.glob("*/seed-*/grade/*.jsonl")}
    for other in sorted(found - set(variants)):
        yield f"{other} has scores, but it is no variant of this report; it was left out."


def _gaps(benchmark: Benchmark) -> Iterator[str]:
    """Say of each variant and seed how many scores it lacks that another variant or seed has."""
    for place, variant in enumerate(benchmark.variants):
        for row, seed in enumerate(benchmark.seeds):
            gaps: dict[str, list[str]] = {}
            for metric in benchmark.metrics:
                there = np.isfinite(benchmark.values[metric])
                expected = there.any(axis=(0, 1))
                gap = int((expected & ~there[place, row]).sum())
                if gap and there[place].any():
                    gaps.setdefault(f"{gap} of {expected.sum()} prompts", []).append(metric)
            for gap_of, metrics in gaps.items():
                yield (
                    f"{benchmark.name}, {variant}, seed {seed}: {gap_of} have no score by "
                    f"{', '.join(metrics)}."
                )
