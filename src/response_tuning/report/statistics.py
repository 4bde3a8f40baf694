"""Statistics of clustered, paired scores: functions of arrays, of settings and of a generator.

The unit is the prompt. What the seeds say about one prompt is averaged first, so that three seeds
of 500 prompts are 500 observations, not 1,500; prompts are what is resampled. Intervals speak of
other prompts like these, with the seeds of this run.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from response_tuning.configs import ReportConfig

Array = npt.NDArray[np.float64]

CELLS = 2**22
"""Resampling counts that are held at once: 32 MiB of them."""
TINY = 1e-9
"""Means that are nearer than this are equal: sums of thirds are not exact."""


class Estimate(NamedTuple):
    """A mean over prompts and what its bootstrap says."""

    value: float
    low: float
    high: float
    p_value: float
    """Two-sided, of a mean of 0."""
    p_equivalence: float
    """Of a mean at or beyond the margin: the larger of two one-sided p-values."""
    n: int
    """Distinct prompts."""
    constant: bool
    """All prompts have the same value, which a bootstrap cannot tell from certainty."""


def per_prompt(values: Array) -> Array:
    """Average (seeds, prompts) over the seeds that there are; NaN for a prompt without any."""
    there = np.isfinite(values)
    seeds = there.sum(axis=0)
    total = np.where(there, values, 0.0).sum(axis=0)
    mean: Array = np.divide(total, seeds, out=np.full(seeds.shape, np.nan), where=seeds > 0)
    return mean


def resampled_means(units: Array, resamples: int, rng: np.random.Generator) -> Array:
    """Return the means (resamples, k) of ``units`` (n, k) over n rows drawn with replacement.

    All k columns see the same draws, so that what is paired stays paired.
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
    means = resampled_means(units, config.resamples, rng)
    tail = (1 - config.confidence) / 2
    low, high = np.quantile(means, (tail, 1 - tail), axis=0)

    def share(where: npt.NDArray[np.bool_]) -> Array:
        counted: Array = (where.sum(axis=0) + 1) / (config.resamples + 1)
        return counted

    nearer = np.minimum(share(means <= TINY), share(means >= -TINY))
    beyond = np.maximum(share(means <= TINY - config.margin), share(means >= config.margin - TINY))
    rows = np.column_stack([units.mean(axis=0), low, high, np.minimum(1, 2 * nearer), beyond])
    rows[:, :3] = np.round(rows[:, :3], 12) + 0.0  # sums of thirds give no 1e-17, and no -0.0
    constant = np.ptp(units, axis=0) < TINY
    return [
        Estimate(value, down, up, p, p_equivalence, len(units), bool(same))
        for (value, down, up, p, p_equivalence), same in zip(rows.tolist(), constant, strict=True)
    ]


def wilson(successes: int, n: int, confidence: float) -> tuple[float, float]:
    """Return Wilson's interval of a proportion."""
    from scipy.stats import binomtest

    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def mcnemar(gained: int, lost: int) -> float:
    """Return the exact two-sided p-value of McNemar's test, from the discordant pairs."""
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def constant_difference(value: float, n: int, config: ReportConfig) -> Estimate:
    """Estimate a mean in -1..1 from ``n`` prompts that all have the same ``value``.

    If a share s of all prompts were different, n prompts would show none of them with probability
    (1 - s)^n. At most, those others are at the far end, -1 or 1; so a mean of m asks for at least
    s = |value - m| / |value - end|. For a value of 1, the p-value is McNemar's.
    """

    def chance(mean: float) -> float:
        """Probability of what was seen, at most, if the true mean were ``mean``."""
        end = 1.0 if mean > value else -1.0
        return float((1 - abs(value - mean) / abs(value - end)) ** n) if mean != value else 1.0

    share = 1 - ((1 - config.confidence) / 2) ** (1 / n)
    inside = -config.margin < value < config.margin
    return Estimate(
        value=value,
        low=value - share * (value + 1),
        high=value + share * (1 - value),
        p_value=min(1.0, 2 * chance(0.0)),
        p_equivalence=max(chance(-config.margin), chance(config.margin)) if inside else 1.0,
        n=n,
        constant=True,
    )


def cochran_armitage(
    doses: Sequence[float], proportions: Sequence[float], prompts: Sequence[int]
) -> tuple[float, float]:
    """Test for a trend of proportions over doses: z, negative for a fall, and its two-sided p.

    The test takes observations as independent. Seeds of one prompt are not, so they are averaged
    before, and ``prompts`` counts distinct prompts only. Doses that are asked the same prompts are
    not either; what they share makes the test conservative, if anything.
    """
    from scipy.stats import norm

    n = np.asarray(prompts, dtype=float)
    excess = n * (np.asarray(proportions) - np.average(proportions, weights=n))
    centred = np.asarray(doses, dtype=float) - np.average(doses, weights=n)
    overall = float(np.average(proportions, weights=n))
    variance = overall * (1 - overall) * float(n @ centred**2)
    if variance <= TINY:  # all refuse, or none does: there is no trend to see
        return 0.0, 1.0
    z = float(centred @ excess / np.sqrt(variance))
    return z, float(2 * norm.sf(abs(z)))
