"""``rtune status``: how far each cell of a run is, how fast, and who has it.

It reads files that are written anyway and takes no lock, so that it keeps no process from a cell.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.artifacts import read_json
from response_tuning.errors import ConfigError
from response_tuning.folders import STAGE_MANIFEST
from response_tuning.validation import build
from response_tuning.workflows.cell import COMPLETIONS_JOURNAL
from response_tuning.workflows.cell_manifest import CELL_MANIFEST, cell_cost, lacking
from response_tuning.workflows.experiment import Cell, Experiment, cells
from response_tuning.workflows.holders import Holder, holder_of, metrics_of
from response_tuning.workflows.report import RUN_MANIFEST

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

COLUMNS = ("cell", "state", "progress", "speed", "held by")
WATCH_S = 2.0
"""Seconds between two looks."""


def show_status(run: Path, console: "Console", *, watch: bool = False) -> None:
    """Print a line for each cell; with ``watch``, again every two seconds until all are done.

    Raises:
        ConfigError: the folder holds no run that has begun.
    """
    from rich.live import Live

    experiment = _experiment(run)
    every = cells(experiment)
    if not watch:
        console.print(_table(every, experiment, run))
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(_table(every, experiment, run), refresh=True)
            if not any(lacking(cell, experiment, run) for cell in every):
                return
            time.sleep(WATCH_S)


def _experiment(run: Path) -> Experiment:
    manifest = run / RUN_MANIFEST
    if not manifest.exists():
        raise ConfigError(
            f"{run}: no run has begun here (no {RUN_MANIFEST}); name the folder of 'rtune run', "
            "whose first cell has its answers, or that a launcher began"
        )
    return build(Experiment, read_json(manifest, "experiment")["experiment"], str(manifest))


def _table(every: Sequence[Cell], experiment: Experiment, run: Path) -> "Table":
    from rich.table import Table

    rows = [row_of(cell, experiment, run) for cell in every]
    done = sum(row[1] == "done" for row in rows)
    table = Table(*COLUMNS, caption=f"{done} of {len(rows)} cells done", box=None)
    for row in rows:
        table.add_row(*row)
    return table


def row_of(cell: Cell, experiment: Experiment, run: Path) -> tuple[str, ...]:
    """Return what ``COLUMNS`` say about a cell."""
    folder = cell.folder(run)
    missing = lacking(cell, experiment, run)
    if not missing:
        seconds = sum(cell_cost(cell, run).values())
        return cell.name, "done", f"{seconds:,.0f} s", "", ""
    holder = holder_of(folder)
    progress, speed = _training(cell, folder, holder)
    if holder is None:
        return cell.name, missing, progress, "", ""
    if holder.has_ended:
        return cell.name, "stopped", progress, "", f"{holder}, which has ended"
    return cell.name, _stage(cell, folder), progress, speed, str(holder)


def _stage(cell: Cell, folder: Path) -> str:
    if (folder / CELL_MANIFEST).exists():
        return "grading"
    tuned = folder / "finetune" / STAGE_MANIFEST
    if cell.tuned and not tuned.exists():
        return "preparing"
    if cell.tuned and read_json(tuned).get("status") == "running":
        return "tuning"
    return "answering"


def _training(cell: Cell, folder: Path, holder: Holder | None) -> tuple[str, str]:
    """Return how far a cell is, and how fast its holder tunes it."""
    answers = _answers(folder)
    steps = metrics_of(folder) if cell.tuned else []
    if answers or not steps:
        return (f"{answers:,} answers" if answers else ""), ""
    last = steps[-1]
    planned = cell.finetune.max_steps or round(last["step"] / last["epoch"] * cell.finetune.epochs)
    progress = f"step {last['step']:,}/{planned:,}"
    if holder is None:
        return progress, ""
    written = (folder / "finetune" / "metrics.jsonl").stat().st_mtime
    # Each start of the tuning writes its manifest again.
    seconds = written - (folder / "finetune" / STAGE_MANIFEST).stat().st_mtime
    tokens = sum(step.get("tokens", 0) for step in steps[holder.steps :])
    return progress, f"{tokens / seconds:,.0f} tokens/s" if seconds > 0 else ""


def _answers(folder: Path) -> int:
    journal = folder / COMPLETIONS_JOURNAL
    if not journal.exists():
        return 0
    with journal.open("rb") as lines:
        return max(sum(1 for _ in lines) - 1, 0)  # the first line names the kind
