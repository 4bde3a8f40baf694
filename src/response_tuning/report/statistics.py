"""Statistics of clustered, paired scores: functions of arrays, of settings and of a generator.

The unit is the prompt. The seeds of a prompt are averaged first, so that three seeds of 500 prompts
are 500 observations, not 1,500. We bootstrap over prompts and keep the seeds of a prompt together:
intervals cover the choice of prompts, for the seeds of this run.

A ratio is sum(weight x value) / sum(weight) over prompts. Its numerator and its denominator are
averaged over seeds and resampled together, since the weights may depend on the answers.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from response_tuning.configs import ReportConfig

Array = npt.NDArray[np.float64]

CELLS = 2**22
"""Resampling counts in memory at once: 32 MiB."""
TINY = 1e-9
"""Means closer than this are equal, because sums of thirds are not exact."""


class Estimate(NamedTuple):
    """A mean over prompts, or a ratio of sums, with the results of its bootstrap."""

    value: float
    low: float
    high: float
    p_value: float
    """Two-sided p-value of the hypothesis that the value is 0."""
    p_equivalence: float
    """P-value of a value at or beyond the margin: the larger of two one-sided ones."""
    n: int
    """Distinct prompts with a positive weight."""
    constant: bool
    """Whether all prompts, or resamples, agree; a bootstrap would then report certainty."""
    effective: float
    """Effective number of prompts under unequal weights; ``n`` for a mean."""
    undefined: int = 0
    """Resamples that were left out because their weights are all 0."""


def per_prompt(values: Array) -> Array:
    """Average (..., seeds, prompts) over the seeds with a value; NaN for prompts without one."""
    scored = np.isfinite(values)
    seeds = scored.sum(axis=-2)
    total = np.where(scored, values, 0.0).sum(axis=-2)
    mean: Array = np.divide(total, seeds, out=np.full(seeds.shape, np.nan), where=seeds > 0)
    return mean


def resampled_means(units: Array, resamples: int, rng: np.random.Generator) -> Array:
    """Return the means (resamples, k) of ``units`` (n, k) over n rows drawn with replacement.

    All k columns use the same draws, so that paired values stay paired.
    """
    n, k = units.shape
    means = np.empty((resamples, k))
    rows = max(1, CELLS // n)
    for start in range(0, resamples, rows):
        part = means[start : start + rows]
        counts = rng.multinomial(n, np.full(n, 1 / n), size=len(part))
        part[:] = counts.astype(np.float64) @ units / n
    return means


def bootstrap(units: Array, config: ReportConfig, rng: np.random.Generator) -> list[Estimate]:
    """Estimate the mean of each column of ``units`` (prompts, k) by a cluster bootstrap.

    The interval holds the percentiles of the B resampled means. With b of them at or below 0 and
    a at or above it, p = min(1, 2 (min(a, b) + 1) / (B + 1)), which is never 0 and agrees with the
    interval. A one-sided p-value of the equivalence test is (b + 1) / (B + 1), with b the number
    of means at or beyond that margin.
    """
    # (resamples, k), and per column: value, two limits, two p-values.
    means = resampled_means(units, config.resamples, rng)
    rows = _intervals(units.mean(axis=0), means, config)
    constant, n = np.ptp(units, axis=0) < TINY, len(units)
    return [
        Estimate(value, low, high, p, p_equivalence, n, bool(same), n)
        for (value, low, high, p, p_equivalence), same in zip(rows, constant, strict=True)
    ]


def bootstrap_ratios(
    parts: Array, config: ReportConfig, rng: np.random.Generator
) -> list[Estimate]:
    """Estimate k ratios of sums, or k differences of two, by a cluster bootstrap.

    ``parts`` (prompts, k, 2 or 4) has the numerator and the denominator of every prompt, and then
    those of the ratio to subtract. A resample in which a denominator is 0 has no ratio: it is left
    out and counted. Otherwise as in ``bootstrap``.
    """
    n, k, columns = parts.shape
    means = resampled_means(parts.reshape(n, -1), config.resamples, rng).reshape(-1, k, columns)
    return [_ratio(parts[:, j], means[:, j], config) for j in range(k)]


def _ratio(parts: Array, means: Array, config: ReportConfig) -> Estimate:
    """Estimate from ``parts`` (prompts, 2 or 4) and their resampled means."""
    weights = parts[:, 1::2]
    defined = means[(means[:, 1::2] > 0).all(axis=1)]
    resampled = _difference(defined)
    ((value, low, high, p, p_equivalence),) = _intervals(
        _difference(parts.sum(axis=0, keepdims=True)), resampled[:, None], config
    )
    return Estimate(
        value, low, high, p, p_equivalence,
        n=int(weights.any(axis=1).sum()),
        constant=bool(np.ptp(resampled) < TINY),
        effective=min(map(effective, weights.T)),
        undefined=len(means) - len(defined),
    )  # fmt: skip


def _difference(sums: Array) -> Array:
    """Return the ratio in each row of (rows, 2 or 4), less the second if there is one."""
    ratios: Array = sums[:, 0::2] / sums[:, 1::2]
    difference: Array = ratios[:, 0] - ratios[:, 1:].sum(axis=1)
    return difference


def effective(weights: Array) -> float:
    """Return the effective number of prompts under these weights (Kish 1965, section 11.7)."""
    return float(weights.sum() ** 2 / (weights**2).sum())


def _intervals(values: Array, resampled: Array, config: ReportConfig) -> list[list[float]]:
    """Return [value, low, high, p, p of equivalence] for ``values`` (k), from (resamples, k)."""
    tail = (1 - config.confidence) / 2
    low, high = np.quantile(resampled, (tail, 1 - tail), axis=0)

    def share(where: npt.NDArray[np.bool_]) -> Array:
        counted: Array = (where.sum(axis=0) + 1) / (len(resampled) + 1)
        return counted

    below, above = share(resampled <= TINY), share(resampled >= -TINY)
    beyond = np.maximum(
        share(resampled <= TINY - config.margin), share(resampled >= config.margin - TINY)
    )
    p = np.minimum(1, 2 * np.minimum(below, above))
    rows = np.column_stack([values, low, high, p, beyond])
    rows[:, :3] = np.round(rows[:, :3], 12) + 0.0  # sums of thirds give no 1e-17, and no -0.0
    listed: list[list[float]] = rows.tolist()
    return listed


def wilson(successes: int, n: int, confidence: float) -> tuple[float, float]:
    """Return Wilson's interval of a proportion."""
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(gained: int, lost: int) -> float:
    """Return the exact two-sided p-value of McNemar's test, from the discordant pairs."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def unvaried(estimate: Estimate, lowest: float, config: ReportConfig) -> Estimate:
    """Return an interval for a value in ``lowest``..1 that all prompts share.

    If a share s of all prompts had another value, n prompts would show none with probability
    (1 - s)^n. The other values are at most at the far end, ``lowest`` or 1, so a mean of m needs at
    least s = |value - m| / |value - end|. With unequal weights, n is ``effective``.
    """
    share = 1 - ((1 - config.confidence) / 2) ** (1 / estimate.effective)
    low, high = (
        estimate.value - share * (estimate.value - lowest),
        estimate.value + share * (1 - estimate.value),
    )
    return estimate._replace(low=low, high=high)


def constant_difference(estimate: Estimate, config: ReportConfig) -> Estimate:
    """Return the interval and the tests of a difference in -1..1 that all prompts share.

    They use the same probability as ``unvaried``. For a value of 1, the p-value is McNemar's.
    """
    value = estimate.value

    def chance(mean: float) -> float:
        """Upper bound of the probability of this sample if the true mean were ``mean``."""
        end = 1.0 if mean > value else -1.0
        share = abs(value - mean) / abs(value - end) if mean != value else 0.0
        return float((1 - share) ** estimate.effective)

    # Outside the margin there is nothing to show, whatever the chance.
    inside = -config.margin < value < config.margin
    return unvaried(estimate, -1.0, config)._replace(
        p_value=min(1.0, 2 * chance(0.0)),
        p_equivalence=max(chance(-config.margin), chance(config.margin)) if inside else 1.0,
    )


def cochran_armitage(
    doses: Sequence[float], proportions: Sequence[float], prompts: Sequence[float]
) -> tuple[float, float]:
    """Test for a trend of proportions over doses: z, negative for a fall, and its two-sided p.

    The test assumes independent observations. Seeds of one prompt are not independent, so they
    are averaged first; ``prompts`` counts distinct prompts, or ``effective`` ones.
    Doses share their prompts, so they are not independent either; this makes the test conservative.
    """
    from scipy.stats import norm

    n = np.asarray(prompts, dtype=float)
    excess = n * (np.asarray(proportions) - np.average(proportions, weights=n))
    centred = np.asarray(doses, dtype=float) - np.average(doses, weights=n)
    overall = float(np.average(proportions, weights=n))
    variance = overall * (1 - overall) * float(n @ centred**2)
    if variance <= TINY:  # all refuse or none does, so there is no trend
        return 0.0, 1.0
    z = float(centred @ excess / np.sqrt(variance))
    return z, float(2 * norm.sf(abs(z)))
