"""What is estimated of a benchmark, and from which resamples."""

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
    """A metric of a variant or, with a baseline, how much it is above the baseline's.

    A difference of means is the mean of differences, on the prompts and seeds that both have scores
    of. A difference of ratios cannot be: which answers count may differ between the two. It is on
    the prompts and seeds of which is known, for both, what they count, if only as nothing (see
    ``BenchmarkScores.known``); so precision is compared though the two refuse different prompts.
    """

    metric: str
    variant: str
    baseline: str | None = None

    def of(self, benchmark: BenchmarkScores) -> Array:
        """Return an array (seeds, items); NaN where there is no score, or one of two only."""
        scores = benchmark.of(self.metric, self.variant)
        return scores - benchmark.of(self.metric, self.baseline) if self.baseline else scores

    def parts(self, benchmark: BenchmarkScores) -> Array:
        """Return an array (2 or 4, seeds, items): numerators and denominators, as they are known.

        Without a baseline there are 2; with one, what is not known of both is NaN.
        """
        names = [self.variant, self.baseline] if self.baseline else [self.variant]
        parts = np.concatenate([benchmark.parts(self.metric, name) for name in names])
        parts[:, np.isnan(parts).any(axis=0)] = np.nan
        return parts

    def seeds(self, benchmark: BenchmarkScores) -> int:
        """Return in how many seeds there is anything to estimate it from."""
        known = dict(zip(benchmark.variants, benchmark.known(self.metric), strict=True))
        shared = known[self.variant] & known[self.baseline or self.variant]
        return int(shared.any(axis=1).sum())


def estimated(
    benchmark: BenchmarkScores, quantities: Iterable[Quantity], config: ReportConfig
) -> dict[Quantity, Estimate]:
    """Estimate the quantities that have any value.

    Those of the same items share their resamples, which are drawn from the seed and the names of
    these items alone.
    """
    together: dict[tuple[bytes, int], dict[Quantity, Array]] = {}
    for quantity in quantities:
        units = _units(benchmark, quantity)
        there = np.isfinite(units[0])
        if units[1::2, there].any(axis=1).all() and there.any():
            together.setdefault((there.tobytes(), len(units)), {})[quantity] = units
    found: dict[Quantity, Estimate] = {}
    for columns in together.values():
        units = np.stack([*columns.values()], axis=-1)  # (1, 2 or 4; items; quantities)
        there = np.flatnonzero(np.isfinite(units[0, :, 0]))
        names = digest(benchmark.name, *(benchmark.items[place] for place in there))
        rng = np.random.default_rng([config.seed, int(names, base=16)])
        units = units[:, there]
        estimates = (
            bootstrap(units[0], config, rng)
            if len(units) == 1
            else bootstrap_ratios(units.transpose(1, 2, 0), config, rng)
        )
        found |= dict(zip(columns, estimates, strict=True))
    return found


def _units(benchmark: BenchmarkScores, quantity: Quantity) -> Array:
    """Return the means over seeds (1, items) or, of a ratio, (2 or 4, items)."""
    if quantity.metric in benchmark.ratios:
        return per_prompt(quantity.parts(benchmark))
    return per_prompt(quantity.of(benchmark))[None]
