"""Rows of every benchmark: ``benchmark,workload,system,metric,value``, as CSV and as Markdown."""

import csv
import os
import platform
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
    found: dict[tuple[str, ...], str] = {}
    if path.exists():
        with path.open(encoding="utf-8", newline="") as old:
            found = {tuple(cells): value for *cells, value in list(csv.reader(old))[1:]}
    found |= {row[:-1]: f"{row.value:.8g}" for row in rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows([*key, value] for key, value in sorted(found.items()))
    partial.replace(path)


def markdown(rows: Iterable[Row]) -> str:
    """Return date and hardware, then a table: a line a workload and system, a column a metric."""
    rows = list(rows)
    metrics = list(dict.fromkeys(row.metric for row in rows))
    cells: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in rows:
        value = f"{row.value:,.0f}" if abs(row.value) >= 1000 else f"{row.value:.4g}"
        cells.setdefault(row[:3], {})[row.metric] = value
    lines = [["benchmark", "workload", "system", *metrics], ["---"] * 3 + ["--:"] * len(metrics)]
    lines += [[*key, *(found.get(name, "") for name in metrics)] for key, found in cells.items()]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{time.strftime('%Y-%m-%d')}, {hardware()}\n\n{table}"


def hardware() -> str:
    """Return the processor's name and how many cores this process may use."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{names[0] if names else platform.machine()}, {cores} of {os.cpu_count()} cores"
