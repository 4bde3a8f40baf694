"""Rows of every benchmark: ``benchmark,workload,system,metric,value``, as CSV and as Markdown.

    python benchmarks/table.py [CSV]

prints what was measured on this machine today, a table a benchmark.
"""

import csv
import os
import platform
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

LATEST = Path(__file__).parent / "results" / "latest.csv"


class Row(NamedTuple):
    """One measured number; all but ``value`` say which."""

    benchmark: str
    workload: str
    system: str
    metric: str
    value: float


def write(rows: Iterable[Row], path: Path = LATEST) -> None:
    """Merge ``rows`` into the CSV file at ``path``: a new value replaces the one it repeats."""
    found = {row[:-1]: row.value for row in (*(read(path) if path.exists() else ()), *rows)}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows([*key, f"{value:.8g}"] for key, value in sorted(found.items()))
    partial.replace(path)


def read(path: Path) -> list[Row]:
    """Return the rows of the CSV file at ``path``."""
    with path.open(encoding="utf-8", newline="") as lines:
        found = list(csv.reader(lines))[1:]
    return [Row(name, load, system, metric, float(v)) for name, load, system, metric, v in found]


def markdown(rows: Iterable[Row]) -> str:
    """Return date and hardware, then a table a benchmark.

    A table has a line for each workload and system, and a column for each metric.
    """
    tables: dict[str, list[Row]] = {}
    for row in rows:
        tables.setdefault(row.benchmark, []).append(row)
    dated = f"{time.strftime('%Y-%m-%d')}, {hardware()}"
    return "\n\n".join([dated, *map(_table, tables.values())])


def _table(rows: list[Row]) -> str:
    metrics = list(dict.fromkeys(row.metric for row in rows))
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        value = f"{row.value:,.0f}" if abs(row.value) >= 1000 else f"{row.value:.4g}"
        cells.setdefault(row[:3], {})[row.metric] = value
    lines = [["benchmark", "workload", "system", *metrics], ["---"] * 3 + ["--:"] * len(metrics)]
    lines += [[*key, *(found.get(name, "") for name in metrics)] for key, found in cells.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def hardware() -> str:
    """Return the processor's name and how many cores this process may use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else platform.machine()}, {cores} of {os.cpu_count()} cores"


if __name__ == "__main__":
    print(markdown(read(Path(sys.argv[1]) if len(sys.argv) > 1 else LATEST)))
