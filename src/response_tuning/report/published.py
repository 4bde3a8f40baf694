"""Numbers that papers print: they ship as data, a file in ``published/`` for each table.

``workflows/published.py`` decides which of them a variant may stand beside.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from response_tuning.errors import ConfigError
from response_tuning.registry import unknown
from response_tuning.report_config import ReportConfig

FOLDER = Path(__file__).parents[1] / "published"
UNITS = {"share": 1.0, "points": 1.0, "percent": 100.0}
"""Unit of a printed number -> what it is divided by to be in the unit of our metric."""


class Published(NamedTuple):
    """A number that a paper prints: a line of a file in ``FOLDER``."""

    version: str
    """The version of the paper, by which numbers may differ."""
    table: str
    base: str
    data: str
    """A named dataset, or ``-`` for a model that is not tuned."""
    refusals: int | None
    """Refusals that were mixed in; None: not stated."""
    method: str
    """An objective, ``untuned``, or a name that ``tables.yaml`` explains."""
    benchmark: str
    metric: str
    value: float
    """In the unit of our metric: a share is between 0 and 1."""
    sd: float | None
    """Standard deviation between seeds, where the paper has seeds."""
    prompts: int | None = None
    """Number of prompts; None: not known."""
    unit: str = "share"
    """As printed: a key of ``UNITS``."""

    @property
    def source(self) -> str:
        """The paper and the place in it."""
        return f"{self.version}, {self.table}"


class NotCompared(NamedTuple):
    """Published numbers of a variant's base, data and settings whose protocol is another one."""

    table: str
    part: str
    """A benchmark, or a benchmark and its metric (``xstest/false_refusal``)."""
    why: str
    """What no setting makes the same."""
    rows: tuple[Published, ...]


@dataclass(frozen=True)
class PublishedBeside:
    """The published numbers that belong beside a variant's own."""

    rows: tuple[Published, ...] = ()
    reasons: tuple[str, ...] = ()
    """For each table that does not: its name, and what differs."""
    remarks: tuple[str, ...] = ()
    """For each table that does: its name, and what settings cannot tell."""
    not_compared: tuple[NotCompared, ...] = ()
    """Numbers that the report lists without a difference."""


def names() -> list[str]:
    """Return the names of all tables."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def read(name: str) -> list[Published]:
    """Return the numbers of a table.

    Raises:
        ConfigError: there is no such table.
    """
    if name not in names():
        raise unknown("table in report.published", name, names())
    with (FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as lines:
        return [_published(row) for row in csv.DictReader(lines)]


def asked(wanted: str) -> list[Published]:
    """Return the numbers of a ``TABLE``, or of a ``TABLE/METRIC``.

    Raises:
        ConfigError: there is no such table, or it has no such metric.
    """
    name, _, metric = wanted.partition("/")
    rows = read(name)
    metrics = sorted({row.metric for row in rows})
    if metric and metric not in metrics:
        raise unknown(f"metric of table '{name}' in report.published", metric, metrics)
    return [row for row in rows if metric in ("", row.metric)]


def check_published(config: ReportConfig, benchmarks: Sequence[str]) -> None:
    """Refuse tables that a run could never stand beside.

    Raises:
        ConfigError: a table or its metric is unknown, is of other benchmarks than the run's, or has
            none of the metrics that the report shows.
    """
    for wanted in config.published:
        rows = asked(wanted)
        of_table = sorted({row.benchmark for row in rows})
        if not {*of_table} & {*benchmarks}:
            raise ConfigError(
                f"report.published: '{wanted}' has numbers of {', '.join(of_table)}, and this run "
                f"has {', '.join(benchmarks)}; remove it, or add the benchmark"
            )
        metrics = sorted({row.metric for row in rows})
        if config.metrics and not {*metrics} & {*config.metrics}:
            raise ConfigError(
                f"report.published: '{wanted}' has no number by {', '.join(config.metrics)}, which "
                f"report.metrics asks for; it has {', '.join(metrics)}"
            )


def _published(row: Mapping[str, str]) -> Published:
    unit = UNITS[row["unit"]]
    return Published(
        row["version"], row["table"], row["base"], row["data"],
        refusals=int(row["refusals"]) if row["refusals"] else None,
        method=row["method"],
        benchmark=row["benchmark"],
        metric=row["metric"],
        value=round(float(row["value"]) / unit, 6),
        sd=round(float(row["sd"]) / unit, 6) if row["sd"] else None,
        unit=row["unit"],
    )  # fmt: skip
