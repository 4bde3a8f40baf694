"""What the variants of a grid say together: marginal means, and differences of those that match.

Every variant of a mean, and every pair of a mean difference, has the same weight. Both are
contrasts of all these variants on the prompts and seeds that they share. Their intervals cover
prompts and seeds, and not the values that the grid does not have.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import NamedTuple

import numpy as np

from response_tuning.grid import VARIANT, Place, differing_axis
from response_tuning.report.estimates import Estimate, estimated, mean_difference, mean_of
from response_tuning.report.intervals import detectable
from response_tuning.report.joined import BenchmarkScores, Variant
from response_tuning.report_config import ReportConfig


class Marginal(NamedTuple):
    """A line of ``marginals.csv``: the mean of a variant of the recipe over its variants."""

    variant: str
    axis: str
    """The axis that is fixed; empty: none."""
    at: str
    """The value at which it is."""
    benchmark: str
    metric: str
    value: float
    low: float
    high: float
    variants: int
    """Variants with scores, of which this is the mean."""
    of: int
    """Variants there."""
    n: int
    """Prompts that all of them have in common, like clusters and seeds."""
    clusters: int
    seeds: int
    seed_sd: float | None
    seed_values: tuple[float, ...]
    """The mean of each seed."""


class Effect(NamedTuple):
    """A line of ``effects.csv``: what changes with a value of an axis, over all that match."""

    axis: str
    value: str
    baseline: str
    """The value that it is compared with."""
    within: str
    """Another axis that is fixed; empty: none."""
    at: str
    benchmark: str
    metric: str
    delta: float
    """Mean of ``value`` minus ``baseline`` over the pairs that differ in this axis alone."""
    low: float
    high: float
    p_value: float
    pairs: int
    """Pairs with scores of both."""
    of: int
    """Pairs there."""
    n: int
    clusters: int
    seeds: int
    seed_sd: float | None
    seed_deltas: tuple[float, ...]
    """The mean difference of each seed."""
    detectable: float
    """Smallest difference that a run like this one shows with a power of 80 %."""


class OverGrid(NamedTuple):
    """All that the variants of a grid say together; empty without a grid."""

    marginals: list[Marginal]
    effects: list[Effect]


def over_grid(
    benchmarks: Sequence[BenchmarkScores], variants: Sequence[Variant], config: ReportConfig
) -> OverGrid:
    """Average over the grid in which the variants lie.

    On each axis, the baselines are those values that the settings name, or else the first. Variants
    of the recipe are only compared with those that the settings name.
    """
    places = {variant.name: variant.place for variant in variants if variant.place}
    groups, matches = [*_groups(places)], [*_matches(places, config)]
    found = OverGrid([], [])
    for benchmark in benchmarks:
        for metric in benchmark.metrics:
            scored = {v for v in places if np.isfinite(benchmark.of(metric, v)).any()}
            for where, there in groups:
                names = [name for name in there if name in scored]
                if names and (one := estimated(benchmark, mean_of(metric, names))) is not None:
                    found.marginals.append(
                        Marginal(
                            *where, benchmark.name, metric,
                            one.value, *one.evidence.interval(config.confidence),
                            len(names), len(there),
                            one.n, one.clusters, one.seeds, one.seed_sd, one.by_seed,
                        )
                    )  # fmt: skip
            for what, every in matches:
                pairs = [pair for pair in every if scored >= {*pair}]
                if pairs and (one := estimated(benchmark, mean_difference(metric, pairs))):
                    found.effects.append(
                        Effect(
                            *what, benchmark.name, metric,
                            one.value, *_possible(one, benchmark.ends(metric), config),
                            one.evidence.p_value(0.0), len(pairs), len(every),
                            one.n, one.clusters, one.seeds, one.seed_sd, one.by_seed,
                            _detectable(one, config),
                        )
                    )  # fmt: skip
    return found


def _detectable(estimate: Estimate, config: ReportConfig) -> float:
    # From the whole interval: one that is cut at the metric's ends would promise more.
    interval = estimate.evidence.interval(config.confidence)
    return detectable(estimate.evidence, interval, config.confidence)


def _possible(
    estimate: Estimate, ends: tuple[float, float] | None, config: ReportConfig
) -> tuple[float, float]:
    """Return the interval of a difference, of which no end is farther than the metric's ends."""
    low, high = estimate.evidence.interval(config.confidence)
    largest = inf if ends is None else ends[1] - ends[0]
    return max(low, -largest), min(high, largest)


def _groups(places: Mapping[str, Place]) -> Iterator[tuple[tuple[str, str, str], list[str]]]:
    """Yield (variant of the recipe, axis, value) and the variants there."""
    for variant in _values(places.values()).get(VARIANT, ()):
        mine = {name: place for name, place in places.items() if place[VARIANT] == variant}
        for axis, at in _slices(mine.values(), but=VARIANT):
            there = [name for name, place in mine.items() if not axis or place.get(axis) == at]
            yield (variant, axis, at), there


def _matches(
    places: Mapping[str, Place], config: ReportConfig
) -> Iterator[tuple[tuple[str, str, str, str, str], list[tuple[str, str]]]]:
    """Yield (axis, value, baseline, other axis, value there) and the (baseline, variant) there."""
    differing = {
        (one, other): axis
        for one, place in places.items()
        for other, there in places.items()
        if (axis := differing_axis(place, there)) is not None
    }
    for axis, value, baseline in compared(places, config):
        every = {
            (one, other): {**places[one], **places[other]}
            for (one, other), its in differing.items()
            if its == axis and (places[one][axis], places[other][axis]) == (baseline, value)
        }
        for within, at in _slices(every.values(), but=axis):
            there = [pair for pair, place in every.items() if not within or place.get(within) == at]
            yield (axis, value, baseline, within, at), there


def compared(places: Mapping[str, Place], config: ReportConfig) -> Iterator[tuple[str, str, str]]:
    """Yield (axis, value, baseline), each two values once."""
    for axis, values in _values(places.values()).items():
        named = [value for value in config.baselines if value in values]
        baselines = named or ([] if axis == VARIANT else values[:1])
        for place, baseline in enumerate(baselines):
            yield from ((axis, v, baseline) for v in values if v not in baselines[: place + 1])


def _values(places: Iterable[Place]) -> dict[str, list[str]]:
    """Return the values of each axis, in the order of the grid."""
    found: dict[str, dict[str, None]] = {}
    for place in places:
        for axis, value in place.items():
            found.setdefault(axis, {})[value] = None
    return {axis: [*values] for axis, values in found.items()}


def _slices(places: Iterable[Place], but: str) -> Iterator[tuple[str, str]]:
    """Yield no axis, and then every axis ``but`` one with each of its values, if it has several."""
    yield "", ""
    for axis, values in _values(places).items():
        if axis != but and len(values) > 1:
            yield from ((axis, value) for value in values)
