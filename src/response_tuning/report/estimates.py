"""The quantities that are estimated for a benchmark, and the resamples they share."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from response_tuning.artifacts import digest
from response_tuning.configs import ReportConfig
from response_tuning.report.joined import BenchmarkScores
from response_tuning.report.statistics import (
    Array,
    Estimate,
    bootstrap,
    bootstrap_ratios,
    per_prompt,
)


class Quantity(NamedTuple):
    """A metric of a variant or, with a baseline, its difference from the baseline.

    A difference of means is the mean of differences, on the prompts and seeds with scores of both.
    A difference of ratios is not, since different answers may count in the two. It uses the prompts
    and seeds for which both weights are known, even if a weight is 0 (see
    ``BenchmarkScores.known``). So precision can be compared although the two variants refuse
    different prompts.
    """

    metric: str
    variant: str
    baseline: str | None = None

    def of(self, benchmark: BenchmarkScores) -> Array:
        """Return an array (seeds, items); NaN without a score, or with only one of two."""
        scores = benchmark.of(self.metric, self.variant)
        return scores - benchmark.of(self.metric, self.baseline) if self.baseline else scores

    def parts(self, benchmark: BenchmarkScores) -> Array:
        """Return an array (2 or 4, seeds, items): numerators and denominators.

        There are 2 without a baseline. With one, values that are not known for both are NaN.
        """
        names = [self.variant, self.baseline] if self.baseline else [self.variant]
        parts = np.concatenate([benchmark.parts(self.metric, name) for name in names])
        parts[:, np.isnan(parts).any(axis=0)] = np.nan
        return parts

    def seeds(self, benchmark: BenchmarkScores) -> int:
        """Return the number of seeds with data for the estimate."""
        known = dict(zip(benchmark.variants, benchmark.known(self.metric), strict=True))
        shared = known[self.variant] & known[self.baseline or self.variant]
        return int(shared.any(axis=1).sum())


def estimated(
    benchmark: BenchmarkScores, quantities: Iterable[Quantity], config: ReportConfig
) -> dict[Quantity, Estimate]:
    """Estimate the quantities that have a value.

    Quantities of the same items share their resamples. Those depend only on the seed and the names
    of these items.
    """
    together: dict[tuple[bytes, int], dict[Quantity, Array]] = {}
    for quantity in quantities:
        units = _units(benchmark, quantity)
        has_value = np.isfinite(units[0])
        if units[1::2, has_value].any(axis=1).all() and has_value.any():
            together.setdefault((has_value.tobytes(), len(units)), {})[quantity] = units
    estimates_of: dict[Quantity, Estimate] = {}
    for columns in together.values():
        units = np.stack([*columns.values()], axis=-1)  # (1, 2 or 4; items; quantities)
        places = np.flatnonzero(np.isfinite(units[0, :, 0]))
        names = digest(benchmark.name, *(benchmark.items[place] for place in places))
        rng = np.random.default_rng([config.seed, int(names, base=16)])
        units = units[:, places]
        estimates = (
            bootstrap(units[0], config, rng)
            if len(units) == 1
            else bootstrap_ratios(units.transpose(1, 2, 0), config, rng)
        )
        estimates_of |= dict(zip(columns, estimates, strict=True))
    return estimates_of


def _units(benchmark: BenchmarkScores, quantity: Quantity) -> Array:
    """Return the means over seeds (1, items) or, of a ratio, (2 or 4, items)."""
    if quantity.metric in benchmark.ratios:
        return per_prompt(quantity.parts(benchmark))
    return per_prompt(quantity.of(benchmark))[None]
