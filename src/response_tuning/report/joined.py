"""The data of a report: variants, and the scores of benchmarks joined by metric and item."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from response_tuning.artifacts import Total
from response_tuning.grid import Place
from response_tuning.metrics import ACCURACY, UNREAD_OR_UNCHECKED, Display
from response_tuning.report.metrics import headline, ordered
from response_tuning.report.published import PublishedBeside
from response_tuning.report.variance import Array

ScoreMask = npt.NDArray[np.bool_]


class Training(NamedTuple):
    """What one model was tuned on, from its manifest."""

    objective: str
    twins: tuple[str, ...]
    """Objectives whose rows were matched with this one's."""
    examples: str
    """Digest of the examples."""
    kept: int
    """Examples that were trained on."""
    supervised_tokens: int
    steps: int


@dataclass(frozen=True)
class Variant:
    """One arm of an experiment, under the name of its folder."""

    name: str
    label: str
    """A description in one line."""
    series: str = ""
    """Variants of one series differ only in their ``dose``; empty: not part of a series."""
    dose: int | None = None
    """Number of refusals among the examples; None: not part of a series."""
    training: tuple[Training, ...] = ()
    """One for each seed; empty: not tuned, or not known."""
    place: Place = field(default_factory=dict)
    """Where it lies in a grid; empty without one."""
    published: PublishedBeside = field(default_factory=PublishedBeside)
    """Numbers of papers that belong beside its own."""


@dataclass(frozen=True)
class BenchmarkScores:
    """All scores of one benchmark.

    Most metrics are means over prompts. Others are ratios, sum(weight x value) / sum(weight), whose
    denominator varies as well: see ``ratios``.
    """

    name: str
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    items: tuple[str, ...]
    """Sorted, so that no number depends on the order of the variants."""
    groups: tuple[str, ...]
    """The group of each item."""
    clusters: tuple[str, ...]
    """The cluster of each item: one of its own unless items ask about the same thing."""
    values: Mapping[str, Array]
    """Metric -> array (variants, seeds, items); NaN where there is no score."""
    weights: Mapping[str, Array] = field(default_factory=dict)
    """The same arrays for the weights of metrics with a weight other than 1."""
    totals: Mapping[str, Mapping[str, Mapping[int, Total]]] = field(default_factory=dict)
    """Metric that is not a mean of scores -> variant -> seed -> its total."""
    display: Display = field(default_factory=Display)

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that have scores, in the order of tables."""
        return ordered(self.values, self.display)

    @cached_property
    def headline(self) -> tuple[str, ...]:
        """The metrics that tables show, totals included."""
        return headline([*self.values, *self.totals], self.display)

    @cached_property
    def accuracy(self) -> tuple[str, ...]:
        """The metrics of right answers."""
        return tuple(name for name in ACCURACY if name in self.values)

    @cached_property
    def ratios(self) -> frozenset[str]:
        """The metrics with weights, and those for which the answer decides whether it counts.

        Precision is of the second kind: it is a mean over refusals only, with weights of 1. Some
        answers to a prompt have a score and others, although graded and read, have none. Files
        without a score by a metric say nothing about that.
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

    def ends(self, metric: str) -> tuple[float, float] | None:
        """Return the lowest and the highest possible value of a metric; None without such ends."""
        return self.display.scales.get(metric) or ((0.0, 1.0) if metric in self.shares else None)

    def of(self, metric: str, variant: str) -> Array:
        """Return an array (seeds, items)."""
        scores: Array = self.values[metric][self.variants.index(variant)]
        return scores

    def seeds_of(self, variant: str) -> list[int]:
        """Return the seeds at which ``variant`` has any score."""
        place = self.variants.index(variant)
        scored = np.zeros(len(self.seeds), dtype=bool)
        for values in self.values.values():
            scored |= np.isfinite(values[place]).any(axis=1)
        return [seed for seed, has_scores in zip(self.seeds, scored, strict=True) if has_scores]

    def parts(self, metric: str, variant: str) -> Array:
        """Return an array (2, seeds, items): weight x value, and weight.

        Both are 0 where an answer does not count, and NaN where this is not ``known``.
        """
        place = self.variants.index(variant)
        values, weights = self.values[metric][place], self.weights.get(metric)
        scored = np.isfinite(values)
        weight = np.where(scored, 1.0 if weights is None else weights[place], 0.0)
        parts = np.stack([np.where(scored, values, 0.0) * weight, weight])
        parts[:, ~self.known(metric)[place]] = np.nan
        return parts

    @cached_property
    def graded(self) -> npt.NDArray[np.bool_]:
        """Mask (variants, seeds): whether there is a score by any metric."""
        mask = np.zeros((len(self.variants), len(self.seeds)), dtype=bool)
        for metric in self.metrics:
            mask |= self.known(metric).any(axis=2)
        return mask

    def known(self, metric: str) -> ScoreMask:
        """Return a mask (variants, seeds, items): scored or, for a ratio, known not to count."""
        scored = np.isfinite(self.values[metric])
        return scored | self._read if metric in self.ratios else scored

    @cached_property
    def _read(self) -> ScoreMask:
        """Mask of answers that were graded and whose verdicts could all be read."""
        graded = np.any([np.isfinite(values) for values in self.values.values()], axis=0)
        unread = [
            values > 0 for metric, values in self.values.items() if metric in UNREAD_OR_UNCHECKED
        ]
        read: ScoreMask = ~np.any([~graded, *unread], axis=0)
        return read

    def _answers_decide(self, metric: str) -> bool:
        scored = np.isfinite(self.values[metric])
        counted, tells = scored.any(axis=(0, 1)), scored.any(axis=2, keepdims=True)
        return bool((counted & tells & self._read & ~scored).any())
