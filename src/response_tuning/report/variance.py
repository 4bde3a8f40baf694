"""How far an estimate may be from the truth: its variance over clusters of prompts and over seeds.

A *cluster* is what several prompts ask about, such as one fact in eight phrasings (Miller 2024,
arXiv 2411.00640). Answers to its prompts are not independent, so clusters are what is counted. A
prompt without a cluster is one by itself.

With fewer than three seeds, the variance is that over clusters: it holds for these trained models.
From three seeds on, it is that of a two-way layout, clusters x seeds, both drawn at random, so that
it holds for a model trained with another seed as well. The three mean squares of the layout give an
unbiased estimate (Cameron, Gelbach and Miller 2011, Journal of Business & Economic Statistics 29,
238-249), and Satterthwaite's formula its degrees of freedom. docs/statistics.md has the coverage.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

SEEDS_TO_VARY = 3
"""Fewest seeds from which the variation of training is estimated."""
TINY = 1e-9
"""Means closer than this are equal, because sums of thirds are not exact."""


class Variance(NamedTuple):
    """The variance of an estimate, and how well it is known."""

    value: float
    df: float
    """Degrees of freedom of Student's t; 0 where a single cluster leaves none."""


def per_prompt(values: Array) -> Array:
    """Average (..., seeds, prompts) over the seeds with a value; NaN for prompts without one."""
    scored = np.isfinite(values)
    seeds = scored.sum(axis=-2)
    total = np.where(scored, values, 0.0).sum(axis=-2)
    mean: Array = np.divide(total, seeds, out=np.full(seeds.shape, np.nan), where=seeds > 0)
    return mean


def influences(parts: Array) -> Array:
    """Return what each score adds to the error of a ratio: (seeds, prompts), with a sum of 0.

    ``parts`` (2, seeds, prompts) has the numerators and the denominators, which are 1 for a mean;
    NaN without a score. The ratio is linearized at its value, as usual in surveys (Cochran 1977,
    Sampling Techniques, section 6.4).
    """
    known = np.isfinite(parts[0])
    above, below = np.where(known, parts, 0.0)
    seeds = np.maximum(known.sum(axis=0), 1)  # a prompt counts once, however many seeds scored it
    whole = (below / seeds).sum()
    value = (above / seeds).sum() / whole
    influence: Array = (above - value * below) / seeds / whole
    return influence


def variance(influence: Array, clusters: Labels) -> Variance:
    """Return the variance of an estimate from its ``influences`` (seeds, prompts).

    ``clusters`` (prompts) numbers the clusters from 0.
    """
    seeds, count = len(influence), int(clusters.max()) + 1
    if count < 2:
        return Variance(0.0, 0)
    cells = np.stack([np.bincount(clusters, row, count) for row in influence])  # (seeds, clusters)
    of_clusters = cells.sum(axis=0)
    over_clusters = count / (count - 1) * float(of_clusters @ of_clusters)
    if seeds < SEEDS_TO_VARY:
        return Variance(over_clusters, count - 1)
    of_seeds = cells.sum(axis=1)
    over_seeds = seeds / (seeds - 1) * float(of_seeds @ of_seeds)
    rest = cells - of_seeds[:, None] / count - of_clusters / seeds
    freedom = (seeds - 1) * (count - 1)
    left = seeds * count / freedom * float((rest**2).sum())
    # Both sums contain what varies from answer to answer. It is also the least that there can be,
    # whatever chance made of the two.
    value = max(over_clusters + over_seeds - left, left)
    unsure = over_seeds**2 / (seeds - 1) + over_clusters**2 / (count - 1) + left**2 / freedom
    lowest, highest = sorted((seeds - 1, count - 1))
    return Variance(
        value, float(np.clip(value**2 / unsure, lowest, highest)) if unsure else highest
    )


def effective(weights: Array) -> float:
    """Return the effective number of prompts under these weights (Kish 1965, section 11.7)."""
    return float(weights.sum() ** 2 / (weights**2).sum())
