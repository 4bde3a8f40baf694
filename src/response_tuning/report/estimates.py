"""What is estimated for a benchmark, and the evidence for it."""

from collections.abc import Sequence
from math import inf
from statistics import stdev
from typing import NamedTuple

import numpy as np

from response_tuning.report.intervals import Constant, Evidence, PairedShares, Share, Student
from response_tuning.report.joined import BenchmarkScores
from response_tuning.report.variance import (
    TINY,
    Array,
    Labels,
    Variance,
    effective,
    influences,
    per_prompt,
    variance,
)


class Contrast(NamedTuple):
    """A weighted sum of a metric's values for some variants: a value, a difference or a slope.

    It uses the prompts and seeds for which all of these variants are known. For a difference of
    means, it is the mean of differences. A difference of ratios is not, since different answers
    may count in the two: a weight of 0 is known as well (see ``BenchmarkScores.known``). So
    precision can be compared although two variants refuse different prompts.
    """

    metric: str
    variants: tuple[str, ...]
    weights: tuple[float, ...] = (1.0,)

    @property
    def is_mean(self) -> bool:
        """Whether it is the value of one variant, or the mean of several."""
        return min(self.weights) > 0

    @property
    def is_difference(self) -> bool:
        """Whether it is the value of one variant minus that of another."""
        return self.weights == (1.0, -1.0)

    def parts(self, benchmark: BenchmarkScores) -> Array:
        """Return an array (variants, 2, seeds, items): numerators and denominators.

        Values that are not known for all variants are NaN.
        """
        parts = np.stack([benchmark.parts(self.metric, name) for name in self.variants])
        parts[:, :, np.isnan(parts).any(axis=(0, 1))] = np.nan
        return parts


class Estimate(NamedTuple):
    """A contrast of one benchmark."""

    evidence: Evidence
    n: int
    """Distinct prompts with a positive weight."""
    clusters: int
    """Distinct clusters of these prompts."""
    seeds: int
    """Seeds with scores of all variants."""
    by_seed: tuple[float, ...]
    """The same contrast in each seed alone, where it has a value."""

    @property
    def value(self) -> float:
        """The contrast over all seeds."""
        return self.evidence.value

    @property
    def seed_sd(self) -> float | None:
        """Standard deviation between seeds, the noise of few prompts included; None for one."""
        return stdev(self.by_seed) if len(self.by_seed) > 1 else None


def mean(metric: str, variant: str) -> Contrast:
    """Return the contrast that is the value of a metric."""
    return Contrast(metric, (variant,))


def difference(metric: str, variant: str, baseline: str) -> Contrast:
    """Return the contrast that is the variant's value minus the baseline's."""
    return Contrast(metric, (variant, baseline), (1.0, -1.0))


def mean_of(metric: str, variants: Sequence[str]) -> Contrast:
    """Return the contrast that is the mean of the variants' values."""
    return Contrast(metric, tuple(variants), (1 / len(variants),) * len(variants))


def mean_difference(metric: str, pairs: Sequence[tuple[str, str]]) -> Contrast:
    """Return the contrast that is the mean of the differences of (baseline, variant)."""
    weights: dict[str, float] = {}
    for baseline, variant in pairs:
        weights[variant] = weights.get(variant, 0.0) + 1 / len(pairs)
        weights[baseline] = weights.get(baseline, 0.0) - 1 / len(pairs)
    return Contrast(metric, tuple(weights), tuple(weights.values()))


def slope(metric: str, variants: Sequence[str]) -> Contrast:
    """Return the contrast that is the change from one variant to the next, by least squares."""
    steps = np.arange(len(variants)) - (len(variants) - 1) / 2
    return Contrast(metric, tuple(variants), tuple((steps / (steps @ steps)).tolist()))


def estimated(benchmark: BenchmarkScores, contrast: Contrast) -> Estimate | None:
    """Estimate a contrast; None if nothing counts for one of its variants."""
    if contrast.metric not in benchmark.values:
        return None
    found = _found(benchmark, contrast)
    if found is None:
        return None
    return Estimate(
        _evidence(benchmark, contrast, found),
        n=int(found.prompts[:, 1].any(axis=0).sum()),
        clusters=found.clusters,
        seeds=found.parts.shape[2],
        by_seed=_by_seed(contrast, found.parts),
    )


class _Found(NamedTuple):
    """The scores of a contrast, without seeds and prompts that count for nothing."""

    parts: Array
    """(variants, 2, seeds, prompts): numerators and denominators."""
    prompts: Array
    """(variants, 2, prompts): the same, averaged over the seeds of a prompt."""
    clusters: int
    value: float
    spread: Variance

    @property
    def is_constant(self) -> bool:
        """Whether all clusters agree, so that nothing tells how they spread."""
        return self.spread.value < TINY**2

    @property
    def is_plain(self) -> bool:
        """Whether there is one seed, and no cluster of several prompts."""
        return self.parts.shape[2:] == (1, self.clusters)

    def independent(self, of_one: float) -> tuple[float, float]:
        """Return how many independent prompts give this variance, if ``of_one`` is that of one.

        The second number is the degrees of freedom. All clusters count, and no more, if they agree.
        """
        if self.is_constant or of_one < TINY:
            weights = self.prompts[:, 1]
            return min([self.clusters, *map(effective, weights)]), inf
        return of_one / self.spread.value, self.spread.df


def _found(benchmark: BenchmarkScores, contrast: Contrast) -> _Found | None:
    parts = contrast.parts(benchmark)
    known = np.isfinite(parts[0, 0])
    # Prompts that count for nothing in any answer tell nothing about the spread of the others.
    seeds, items = known.any(axis=1), (np.nan_to_num(parts[:, 1]) > 0).any(axis=(0, 1))
    parts = parts[:, :, seeds][..., items]
    prompts = per_prompt(parts)
    if not prompts[:, 1].any(axis=1).all():
        return None
    above, below = prompts.sum(axis=-1).T
    influence = np.zeros(parts.shape[2:])
    for weight, of_variant in zip(contrast.weights, parts, strict=True):
        influence += weight * influences(of_variant)
    clusters: Labels = np.unique(np.array(benchmark.clusters)[items], return_inverse=True)[1]
    return _Found(
        parts,
        prompts,
        clusters=int(clusters.max()) + 1,
        value=_weighted(contrast, above / below),
        spread=variance(influence, clusters),
    )


def _evidence(benchmark: BenchmarkScores, contrast: Contrast, found: _Found) -> Evidence:
    """Return the evidence that fits the kind of contrast and of metric: see ``intervals``."""
    ends = benchmark.ends(contrast.metric)
    zeros_and_ones = contrast.metric in benchmark.binary - benchmark.ratios
    if ends and contrast.is_mean:
        return _share(found, ends, zeros_and_ones)
    if ends and contrast.is_difference and zeros_and_ones:
        return _paired(found)
    if not found.is_constant:
        return Student(found.value, float(np.sqrt(found.spread.value)), found.spread.df)
    if ends:
        # Nothing shows the spread, but it is at most that of gains and losses from end to end.
        largest = (ends[1] - ends[0]) * sum(map(abs, contrast.weights)) / 2
        share, (n, df) = found.value / largest, found.independent(0.0)
        return PairedShares(max(share, 0.0), max(-share, 0.0), n, df, largest)
    return Constant(found.value, found.clusters)


def _share(found: _Found, ends: tuple[float, float], zeros_and_ones: bool) -> Share:
    length = ends[1] - ends[0]
    share = (found.value - ends[0]) / length
    n, df = found.independent(share * (1 - share) * length**2)
    if found.is_plain and zeros_and_ones and len(found.parts) == 1:
        n, df = found.clusters, inf
    return Share(found.value, n, df, ends)


def _paired(found: _Found) -> PairedShares:
    """Return the evidence of paired zeros and ones; seeds of a prompt share its place."""
    change = found.parts[0, 0] - found.parts[1, 0]
    known = np.isfinite(change)
    gained, lost = (
        float(per_prompt(np.where(known, change == sign, np.nan)).mean()) for sign in (1, -1)
    )
    n, df = found.independent(gained + lost - found.value**2)
    if found.is_plain:
        n, df = found.clusters, inf
    return PairedShares(gained, lost, n, df)


def _by_seed(contrast: Contrast, parts: Array) -> tuple[float, ...]:
    above, below = np.nansum(parts, axis=-1).swapaxes(0, 1)  # each (variants, seeds)
    counted = (below > 0).all(axis=0)  # a ratio may have no value in a seed
    values = above[:, counted] / below[:, counted]
    return tuple(_weighted(contrast, of_seed) for of_seed in values.T)


def seed_values(benchmark: BenchmarkScores, metric: str, variant: str) -> dict[int, float]:
    """Return seed -> the value of a metric in that seed alone, for seeds where it has one."""
    if metric in benchmark.totals:
        totals = benchmark.totals[metric].get(variant, {})
        return {seed: total.value for seed, total in totals.items()}
    above, below = np.nansum(benchmark.parts(metric, variant), axis=-1)  # each (seeds,)
    return {
        seed: float(over / under)
        for seed, over, under in zip(benchmark.seeds, above, below, strict=True)
        if under > 0
    }


def _weighted(contrast: Contrast, values: Array) -> float:
    """Return the weighted sum, without the 1e-17 of sums of thirds, and without -0.0."""
    return round(float(np.asarray(contrast.weights) @ values), 12) + 0.0
