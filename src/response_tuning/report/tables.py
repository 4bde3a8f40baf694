"""The tables of a report: rows, reading and writing, and the format of numbers."""

import csv
from collections.abc import Mapping, Sequence
from itertools import takewhile
from math import isinf, isnan
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from response_tuning.artifacts import written_aside
from response_tuning.errors import DataError
from response_tuning.metrics import Display
from response_tuning.report.joined import Variant
from response_tuning.report.metrics import headline

NO_DISPLAYS: Mapping[str, Display] = MappingProxyType({})
"""Every benchmark is shown by the common meanings of its metrics."""
MINUS = "\u2212"
NOT_KNOWN = "n/a"
MAX_COLUMNS = 16
"""Most numbers in a row. With more metrics, tables have a row for each metric instead."""


class Result(NamedTuple):
    """A line of ``results.csv``."""

    variant: str
    benchmark: str
    metric: str
    value: float
    low: float
    high: float
    n: int
    """Distinct prompts."""
    seeds: int
    clusters: int
    """Distinct things that the prompts ask about; ``n`` where each asks about its own."""
    seed_sd: float | None
    """Standard deviation of the values of single seeds; None for one seed."""
    seed_values: tuple[float, ...]
    """The value of each seed."""


class Comparison(NamedTuple):
    """A line of ``comparisons.csv``."""

    baseline: str
    variant: str
    benchmark: str
    metric: str
    delta: float
    """Variant minus baseline."""
    low: float
    high: float
    p_value: float
    """Two-sided; below 1 - confidence exactly where the interval excludes 0."""
    n: int
    """Prompts with scores of both."""
    seeds: int
    """Seeds with scores of both."""
    method: str
    """Kind of the interval and of its test: ``tango``, ``t`` or ``sign``."""
    margin: float | None
    """None if equivalence is not tested, like the next two."""
    p_equivalence: float | None
    """Below 1 - confidence exactly where the interval lies inside the margin."""
    equivalent: bool | None
    clusters: int
    seed_sd: float | None
    """Standard deviation of the differences of single seeds; None for one seed."""
    seed_deltas: tuple[float, ...]
    """The difference of each seed."""
    detectable: float
    """Smallest difference that a run like this one shows with a power of 80 %."""
    primary: bool = False
    """Whether the recipe declares it primary."""
    p_holm: float | None = None
    """The p-value of a primary comparison, adjusted for the others."""
    verdict: str = ""
    """``higher`` or ``lower``, ``equivalent``, both (``higher within the margin``), or
    ``inconclusive``."""


class SeedValue(NamedTuple):
    """A line of ``per_seed.csv``: the value of a metric in one seed alone."""

    variant: str
    seed: int
    benchmark: str
    metric: str
    value: float


class Trend(NamedTuple):
    """A line of ``trends.csv``; without a test if there are too few seeds for one."""

    series: str
    benchmark: str
    metric: str
    doses: tuple[int, ...]
    values: tuple[float, ...]
    slope: float
    """Mean change from one dose to the next, by least squares."""
    low: float | None
    high: float | None
    p_value: float | None
    """Two-sided, over prompts and seeds."""
    n: int
    """Prompts with scores at all doses."""
    clusters: int
    seeds: int
    seed_slopes: tuple[float, ...]
    """The slope of each seed."""


def metrics_by_benchmark(results: Sequence[Result]) -> dict[str, list[str]]:
    """Return the metrics of each benchmark, both in the order of the results."""
    by_benchmark: dict[str, dict[str, None]] = {}
    for result in results:
        by_benchmark.setdefault(result.benchmark, {})[result.metric] = None
    return {benchmark: [*metrics] for benchmark, metrics in by_benchmark.items()}


def shares(
    results: Sequence[Result], displays: Mapping[str, Display] = NO_DISPLAYS
) -> set[tuple[str, str]]:
    """Return the (benchmark, metric) that stay between 0 and 1, which are shown in percent."""
    beyond = {
        (r.benchmark, r.metric)
        for r in results
        if r.low < 0 or r.high > 1 or r.metric in displays.get(r.benchmark, Display()).scales
    }
    return {(r.benchmark, r.metric) for r in results} - beyond


def number(value: float, share: bool) -> str:
    """Return a share in percent, without its sign, and anything else to four digits."""
    if isnan(value):
        return NOT_KNOWN
    if isinf(value):
        return f"{MINUS if value < 0 else ''}\u221e"
    if share:
        return f"{100 * value:.1f}"
    return f"{value:.{max(0, 4 - len(str(int(abs(value)))))}f}"


def change(value: float, share: bool) -> str:
    """Return a difference with its sign."""
    text = number(abs(value), share)
    if not text.strip("0."):
        return text
    return ("+" if value > 0 else MINUS) + text


def p_value(p: float) -> str:
    """Return a p-value to three digits."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def write_csv(path: Path, kind: type[NamedTuple], rows: Sequence[NamedTuple]) -> None:
    """Write named tuples of one ``kind`` under their fields' names, whole or not at all."""
    with written_aside(path) as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(kind._fields)
        writer.writerows([_cell(value) for value in row] for row in rows)


def _cell(value: object) -> str:
    """Format a value; six digits are more than resampling determines and hide rounding errors."""
    if isinstance(value, tuple):
        return ";".join(map(_cell, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)


def read_results(path: Path) -> list[Result]:
    """Read ``results.csv``.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = [*csv.DictReader(lines)]
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}; write the report first"
        ) from error
    return [_result(row) for row in rows]


def _result(row: Mapping[str, str]) -> Result:
    """Return a row, which an earlier version may have written without the last columns."""
    seed_sd, by_seed = row.get("seed_sd"), row.get("seed_values")
    return Result(
        variant=row["variant"],
        benchmark=row["benchmark"],
        metric=row["metric"],
        value=float(row["value"]),
        low=float(row["low"]),
        high=float(row["high"]),
        n=int(row["n"]),
        seeds=int(row["seeds"]),
        clusters=int(row.get("clusters") or row["n"]),
        seed_sd=float(seed_sd) if seed_sd else None,
        seed_values=tuple(map(float, by_seed.split(";"))) if by_seed else (),
    )


def summary(
    run: Path, variants: Sequence[Variant], displays: Mapping[str, Display] = NO_DISPLAYS
) -> str:
    """Return the headline numbers of a report as plain text.

    There is a line for each variant, or for each metric if there are too many metrics.
    ``displays`` says how each benchmark is shown.

    Raises:
        DataError: ``run`` has no report yet.
    """
    results = read_results(run / "report" / "results.csv")
    values = {(r.variant, r.benchmark, r.metric): r.value for r in results}
    in_percent = shares(results, displays)
    names = [variant.name for variant in variants]
    # Built with a row for each metric, and transposed below if the metrics fit in one line.
    texts = [["", "", *names]]
    short = _short_names([*metrics_by_benchmark(results)])
    for benchmark, metrics in metrics_by_benchmark(results).items():
        for metric in headline(metrics, displays.get(benchmark, Display())):
            of_variants = [values.get((name, benchmark, metric)) for name in names]
            share = (benchmark, metric) in in_percent
            cells = ["" if value is None else number(value, share) for value in of_variants]
            texts.append([short[benchmark], metric, *cells])
    if len(texts) - 1 > MAX_COLUMNS:
        return _aligned(texts, left=2)
    return _aligned([*zip(*texts, strict=True)], left=1)


def _aligned(rows: Sequence[Sequence[str]], left: int) -> str:
    """Return lines with aligned columns: the first ``left`` ones flush left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = (
        [
            cell.rjust(width) if place >= left else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    )
    return "\n".join("  ".join(line).rstrip() for line in padded)


def _short_names(names: Sequence[str]) -> dict[str, str]:
    """Return each name without the words that all names begin with; a single name stays whole."""
    words = [name.split("-") for name in names]
    same = takewhile(lambda row: len({*row}) == 1, zip(*words, strict=False))
    shared = len([*same]) if len(names) > 1 else 0
    return {name: "-".join(name.split("-")[shared:]) or name for name in names}
