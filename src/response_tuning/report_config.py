"""Settings of the report: which variants are compared, and what counts as equivalent."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field

from response_tuning.configs import Config

TableFormat: TypeAlias = Literal["markdown", "latex"]
FigureFormat: TypeAlias = Literal["svg", "pdf", "png"]


class EquivalenceConfig(Config):
    """The margin of one metric, fixed before the run."""

    margin: float = Field(gt=0)
    """Largest difference that still counts as equal, in the unit of the metric: 0.03 is 3 points
    of a share, and 0.1 is a tenth of a point on a scale from 1 to 5."""
    reason: str = Field(min_length=1)
    """Why this margin, in one sentence for the report."""


class PrimaryConfig(Config):
    """A comparison that the run was made for."""

    variant: str
    """The variant in question."""
    baseline: str
    """What it is compared with: one of ``report.baselines``."""
    metric: str
    """The metric, on every benchmark of the run that has it."""


def _with_margins(given: object) -> object:
    """Refuse the list of names that recipes had before each metric had its own margin."""
    if isinstance(given, (list, tuple)):
        name = next((str(metric) for metric in given), "strict")
        raise ValueError(  # noqa: TRY004 - pydantic turns only a ValueError into a message
            "each metric has its own margin and a reason for it; write "
            f"'{name}: {{margin: 0.03, reason: ...}}'"
        )
    return given


class ReportConfig(Config):
    """Which variants are compared, and with which statistics."""

    baselines: tuple[str, ...] = ()
    """Every other variant is compared with each of these variants, item by item, and each pair
    once."""
    primary: tuple[PrimaryConfig, ...] = ()
    """The comparisons that the run was made for, each of a ``variant`` with one of the baselines by
    a ``metric``. They come first in the report, always on all
    benchmarks, and their tests are corrected together (Holm). All others are exploratory."""
    equivalence: Annotated[dict[str, EquivalenceConfig], BeforeValidator(_with_margins)] = Field(
        default_factory=dict
    )
    """Metric, or ``benchmark/metric``, -> the ``margin`` within which two variants are equivalent,
    and the ``reason`` for it. Choose both before the run."""
    axis: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """A name, such as that of a base or a template, -> variants: an untuned one, whose right first
    lines are the x of a figure, and tuned ones, whose strict scores are its y. Every name has the
    tuned ones in the same order. The variants of a name are compared with each other."""
    metrics: tuple[str, ...] = ()
    """Show these metrics in the tables and figures; by default, each benchmark shows its own. The
    CSV files have all metrics."""
    formats: tuple[TableFormat, ...] = ("markdown",)
    """Formats of the tables beside the page: ``report.md`` and ``report.tex``."""
    figures: tuple[FigureFormat, ...] = ("svg",)
    """Formats of the figures beside the page."""
    published: tuple[str, ...] = ()
    """Published tables, or ``TABLE/METRIC``, to stand beside where base, data and settings match;
    the files in ``response_tuning/published`` name them."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="Of every interval.")

    def margin(self, benchmark: str, metric: str) -> float | None:
        """Return the margin of a metric; that of one benchmark wins. None: it is not tested."""
        both = self.equivalence.get(f"{benchmark}/{metric}"), self.equivalence.get(metric)
        return next((one.margin for one in both if one is not None), None)


def of_this_version(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report settings of an earlier version's manifest as settings of this one.

    Earlier versions had one margin for all metrics, and a seed and a number of bootstrap resamples.
    """
    known = {key: value for key, value in report.items() if key in ReportConfig.model_fields}
    if isinstance(report.get("equivalence"), list):
        reason = "The margin of all metrics in the recipe of this run."
        entry = {"margin": report.get("margin", 0.10), "reason": reason}
        known["equivalence"] = dict.fromkeys(report["equivalence"], entry)
    return known
