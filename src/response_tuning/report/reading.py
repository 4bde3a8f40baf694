"""Reads and joins all scores of a run, and lists what is missing."""

import math
import re
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from response_tuning.artifacts import Record, Score, Total, read_json, read_jsonl
from response_tuning.errors import DataError
from response_tuning.metrics import Display
from response_tuning.report.joined import BenchmarkScores
from response_tuning.report.variance import Array

MOST_NAMES = 4
"""Most variants that a sentence on missing scores names."""


@dataclass(frozen=True)
class _File:
    """The scores of one benchmark by one variant and seed."""

    variant: str
    seed: int
    path: Path


class _Place(NamedTuple):
    """Where an item belongs; both are empty until a score says so."""

    group: str = ""
    cluster: str = ""


class _TotalFile(Record):
    """The file of a benchmark's numbers that are not means of scores."""

    totals: tuple[Total, ...]


def seed_folders(run: Path, variant: str) -> list[tuple[int, Path]]:
    """Return the seeds of a variant and their folders, lowest seed first."""
    named = ((re.fullmatch(r"seed-(\d+)", p.name), p) for p in (run / variant).glob("seed-*"))
    return sorted((int(match[1]), path) for match, path in named if match)


def read_scores(
    run: Path,
    variants: Sequence[str],
    seeds: Mapping[str, Sequence[int]] | None = None,
    benchmarks: Mapping[str, Display] | None = None,
) -> tuple[list[BenchmarkScores], list[str]]:
    """Return the scores and totals in ``grade/`` below ``run``, and sentences on what is missing.

    With ``seeds`` of each variant, and ``benchmarks``, no others are read, which an earlier run may
    have left. Benchmarks come in this order, otherwise those with an accuracy first.

    Raises:
        DataError: there are no scores; or a file has two numbers of one item or benchmark by one
            metric, or one that is not finite; or a file of totals holds something else.
    """
    files = [
        _File(variant, seed, path)
        for variant in variants
        for seed, folder in seed_folders(run, variant)
        if seeds is None or seed in seeds.get(variant, ())
        for path in sorted((folder / "grade").glob("*.jsonl"))
        if benchmarks is None or path.stem in benchmarks
    ]
    if not files:
        raise DataError(
            f"{run}: no variant has scores in seed-*/grade/*.jsonl; grade the run first"
        )
    # One benchmark at a time, so that memory holds the scores of one file beside the arrays.
    names = {file.path.stem for file in files}
    joined = [
        replace(
            _joined(name, [file for file in files if file.path.stem == name], tuple(variants)),
            display=(benchmarks or {}).get(name, Display()),
        )
        for name in sorted(names)
    ]
    order = [*(benchmarks or ())]
    joined.sort(key=lambda one: order.index(one.name) if order else not one.accuracy)
    missing = [*_ungraded(run, variants, files)]
    for benchmark in joined:
        missing += [*_unscored(benchmark, {file.variant for file in files}), *_gaps(benchmark)]
    return joined, missing


def _joined(name: str, files: Sequence[_File], variants: tuple[str, ...]) -> BenchmarkScores:
    known: dict[str, _Place] = {}  # of items, in the order in which they are first seen
    cells = {(file.variant, file.seed): _read(file.path, known) for file in files}
    seeds = tuple(sorted({seed for _, seed in cells}))
    metrics = {metric for of_cell in cells.values() for metric in of_cell}
    # Both the values and their weights: (2, variants, seeds, items).
    joined = {m: np.full((2, len(variants), len(seeds), len(known)), np.nan) for m in metrics}
    for (variant, seed), of_cell in cells.items():
        for metric, (places, numbers) in of_cell.items():
            joined[metric][:, variants.index(variant), seeds.index(seed), places] = numbers
    items = sorted(known)
    position = {item: place for place, item in enumerate(known)}
    order = [position[item] for item in items]
    weights = {metric: both[1][:, :, order] for metric, both in joined.items()}
    return BenchmarkScores(
        name=name,
        variants=variants,
        seeds=seeds,
        items=tuple(items),
        groups=tuple(known[item].group for item in items),
        clusters=tuple(known[item].cluster or item for item in items),
        values={metric: both[0][:, :, order] for metric, both in joined.items()},
        weights={m: both for m, both in weights.items() if np.nanmax(abs(both - 1))},
        totals=_totals(files, metrics),
    )


def _read(path: Path, places: dict[str, _Place]) -> dict[str, tuple[npt.NDArray[np.int64], Array]]:
    """Return metric -> places in ``places``, to which new items are added, and (2, places).

    The latter are the values and their weights.
    """
    # ``places`` is shared by all files of a benchmark: an item has the same place in each.
    position = {item: place for place, item in enumerate(places)}
    by_metric: dict[str, dict[int, tuple[float, float]]] = {}
    for score in read_jsonl(path, Score):
        place = position.setdefault(score.item_id, len(position))
        known = places.get(score.item_id, _Place())
        places[score.item_id] = _Place(known.group or score.group, known.cluster or score.cluster)
        numbers = by_metric.setdefault(score.metric, {})
        if fault := _fault(score, twice=place in numbers):
            raise DataError(
                f"{path}: {fault} of item '{score.item_id}' by '{score.metric}'; grade it again"
            )
        numbers[place] = score.value, score.weight
    return {
        metric: (np.fromiter(numbers, int), np.array([*numbers.values()]).T)
        for metric, numbers in by_metric.items()
    }


def _fault(score: Score, *, twice: bool) -> str:
    if twice:
        return "a second score"
    if not math.isfinite(score.value):
        return f"the score {score.value}"
    return "" if math.isfinite(score.weight) else f"the weight {score.weight}"


def _totals(
    files: Sequence[_File], metrics: Collection[str]
) -> dict[str, dict[str, dict[int, Total]]]:
    """Read the existing files of totals; ``metrics`` are the names that scores already use."""
    by_metric: dict[str, dict[str, dict[int, Total]]] = {}
    for file in files:
        path = file.path.with_name(f"{file.path.stem}.totals.json")
        names = {*metrics}  # a total by the name of a mean would be two values of one metric
        for total in _total_file(path).totals if path.exists() else ():
            fault = "a second value" if total.metric in names else ""
            if not all(map(math.isfinite, (total.value, total.low, total.high))):
                fault = "a value or limit that is not finite"
            if fault:
                raise DataError(f"{path}: {fault} of '{total.metric}'; grade it again")
            names.add(total.metric)
            by_metric.setdefault(total.metric, {}).setdefault(file.variant, {})[file.seed] = total
    return by_metric


def _total_file(path: Path) -> _TotalFile:
    content = read_json(path)
    try:
        return _TotalFile.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ": ".join(map(str, first["loc"]))
        raise DataError(f"{path}: {where}: {first['msg']}; grade it again") from error


def _ungraded(run: Path, variants: Sequence[str], files: Sequence[_File]) -> Iterator[str]:
    graded = {file.variant for file in files}
    if without := [variant for variant in variants if variant not in graded]:
        yield f"{_have_no_scores(without)}, so no table names {'them' if without[1:] else 'it'}."
    with_scores = {path.parents[2].name for path in run.glob("*/seed-*/grade/*.jsonl")}
    for other in sorted(with_scores - set(variants)):
        yield f"{other} has scores, but is not a variant of this report; it was left out."


def _have_no_scores(variants: Sequence[str]) -> str:
    """Return the beginning of a sentence on variants without scores; most names are cut off."""
    names = ", ".join(variants[:MOST_NAMES])
    if len(variants) > MOST_NAMES:
        names += f" and {len(variants) - MOST_NAMES} other variants"
    return f"{names} {'have' if variants[1:] else 'has'} no scores"


def _unscored(benchmark: BenchmarkScores, graded: Container[str]) -> Iterator[str]:
    """Yield a sentence for the seeds without any scores that other variants were graded with.

    One sentence names all variants that lack the same seeds. A variant that is not in ``graded``
    has no scores anywhere, which another sentence says.
    """
    lacking: dict[tuple[int, ...], list[str]] = {}
    for variant, by_seed in zip(benchmark.variants, benchmark.graded, strict=True):
        seeds = tuple(seed for seed, has in zip(benchmark.seeds, by_seed, strict=True) if not has)
        if variant in graded and seeds and benchmark.metrics:
            lacking.setdefault(seeds, []).append(variant)
    for seeds, variants in lacking.items():
        of_seeds = f" with seed{'s'[: len(seeds) - 1]} {', '.join(map(str, seeds))}"
        where = "" if seeds == benchmark.seeds else of_seeds
        yield f"{benchmark.name}: {_have_no_scores(variants)}{where}."


def _gaps(benchmark: BenchmarkScores) -> Iterator[str]:
    """Yield a sentence for each variant and seed that lacks some of the scores of others."""
    for place, variant in enumerate(benchmark.variants):
        for row, seed in enumerate(benchmark.seeds):
            if not benchmark.graded[place, row]:
                continue
            gaps: dict[str, list[str]] = {}
            for metric in benchmark.metrics:
                # A ratio has no score where the answer does not count; that is not a gap.
                known = benchmark.known(metric)
                expected = np.isfinite(benchmark.values[metric]).any(axis=(0, 1))
                gap = int((expected & ~known[place, row]).sum())
                if gap and known[place].any():
                    gaps.setdefault(f"{gap} of {expected.sum()} prompts", []).append(metric)
            for gap_of, metrics in gaps.items():
                yield (
                    f"{benchmark.name}, {variant}, seed {seed}: {gap_of} have no score by "
                    f"{', '.join(metrics)}."
                )
