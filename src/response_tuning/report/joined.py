"""What is compared: variants, by the scores of benchmarks, joined by metric and item."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from response_tuning.artifacts import Total
from response_tuning.metrics import ACCURACY, UNREAD_OR_UNCHECKED, Display
from response_tuning.report.metrics import headline, ordered
from response_tuning.report.statistics import Array

Flags = npt.NDArray[np.bool_]


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
class BenchmarkScores:
    """All scores of one benchmark.

    Most metrics are means over prompts. Others are ratios, sum(weight x value) / sum(weight), in
    which the sum below varies as well: see ``ratios``.
    """

    name: str
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    items: tuple[str, ...]
    """Sorted, so that nothing depends on the order in which variants are named."""
    groups: tuple[str, ...]
    """The group of each item."""
    values: Mapping[str, Array]
    """Metric -> array (variants, seeds, items); NaN where there is no score."""
    weights: Mapping[str, Array] = field(default_factory=dict)
    """The same of the scores' weights, for the metrics that have any other than 1."""
    totals: Mapping[str, Mapping[str, Sequence[Total]]] = field(default_factory=dict)
    """Metric that is not a mean of scores -> variant -> the total of each of its seeds."""
    display: Display = field(default_factory=Display)

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that have scores, in the order of tables."""
        return ordered(self.values, self.display)

    @cached_property
    def headline(self) -> tuple[str, ...]:
        """The metrics, totals among them, that tables show."""
        return headline([*self.values, *self.totals], self.display)

    @cached_property
    def accuracy(self) -> tuple[str, ...]:
        """The metrics that say how many answers are right."""
        return tuple(name for name in ACCURACY if name in self.values)

    @cached_property
    def ratios(self) -> frozenset[str]:
        """The metrics with weights, and those to which the answer decides whether it counts.

        Of the latter kind is precision, which is of refusals only, with weights of 1: among the
        answers to a prompt some have a score, and others, though graded and read, have none. Files
        without any score by a metric tell nothing about it.
        """
        return frozenset([*self.weights, *filter(self._answers_decide, self.values)])

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
            if np.nanmin(values) >= 0 and np.nanmax(values) <= 1 and name not in self.display.scales
        )

    def of(self, metric: str, variant: str) -> Array:
        """Return an array (seeds, items)."""
        found: Array = self.values[metric][self.variants.index(variant)]
        return found

    def seeds_of(self, variant: str) -> list[int]:
        """Return the seeds at which ``variant`` has any score."""
        place = self.variants.index(variant)
        scored = np.zeros(len(self.seeds), dtype=bool)
        for values in self.values.values():
            scored |= np.isfinite(values[place]).any(axis=1)
        return [seed for seed, has_scores in zip(self.seeds, scored, strict=True) if has_scores]

    def parts(self, metric: str, variant: str) -> Array:
        """Return an array (2, seeds, items): weight x value, and weight.

        Both are 0 where an answer does not count, and NaN where that is not ``known``.
        """
        place = self.variants.index(variant)
        values, weights = self.values[metric][place], self.weights.get(metric)
        there = np.isfinite(values)
        weight = np.where(there, 1.0 if weights is None else weights[place], 0.0)
        parts = np.stack([np.where(there, values, 0.0) * weight, weight])
        parts[:, ~self.known(metric)[place]] = np.nan
        return parts

    def known(self, metric: str) -> Flags:
        """Return where (variants, seeds, items) there is a score or, of a ratio, none is due."""
        there = np.isfinite(self.values[metric])
        return there | self._read if metric in self.ratios else there

    @cached_property
    def _read(self) -> Flags:
        """Where an answer was graded, and all that was said of it could be read."""
        graded = np.any([np.isfinite(values) for values in self.values.values()], axis=0)
        unread = [
            values > 0 for metric, values in self.values.items() if metric in UNREAD_OR_UNCHECKED
        ]
        read: Flags = ~np.any([~graded, *unread], axis=0)
        return read

    def _answers_decide(self, metric: str) -> bool:
        there = np.isfinite(self.values[metric])
        counted, tells = there.any(axis=(0, 1)), there.any(axis=2, keepdims=True)
        return bool((counted & tells & self._read & ~there).any())
