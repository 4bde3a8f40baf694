"""``rtune run --launcher``: each cell is a command of its own, here or on a cluster.

What a cell is and lacks is on the disk that all of them share. So this process starts what is
missing, waits, names what failed, and writes the report; the same command starts the rest again.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from response_tuning.artifacts import write_json
from response_tuning.folders import shared, turn
from response_tuning.terminal import quiet_libraries
from response_tuning.workflows.cell_manifest import check_left, is_answered, lacking
from response_tuning.workflows.context import check_context
from response_tuning.workflows.experiment import Cell, Experiment
from response_tuning.workflows.report import RUN_MANIFEST
from response_tuning.workflows.run import (
    begun,
    check_judged,
    checked,
    chosen_of,
    conclude,
    manifest_before,
    run_experiment,
)
from response_tuning.workflows.versions import check_this_version

if TYPE_CHECKING:
    from rich.console import Console

Launch: TypeAlias = Callable[[Sequence[str]], Iterator[str]]
"""Starts a command for each cell, and yields the cells whose command has ended."""
LAST_LINES = 5
"""Lines of a failed cell's log that are printed."""


def run_launched(
    experiment: Experiment,
    out: Path,
    console: "Console",
    launch: Launch,
    log_of: Callable[[str], Path],
    only: Sequence[str] = (),
) -> bool:
    """Run each cell that is not whole by a command of its own, then report on all whole cells.

    Returns whether every chosen cell is whole and rates are known.

    Raises:
        ConfigError: as ``run_experiment``.
    """
    quiet_libraries()
    every = checked(experiment)
    chosen = chosen_of(every, only)
    check_judged(experiment, chosen)
    read = [part for cell in every for part in (cell.data, cell.finetune, cell.generate.settings)]

    def missing() -> list[Cell]:
        return [cell for cell in chosen if lacking(cell, experiment, out)]

    with shared(out, experiment.grade, *read):
        check_this_version(every, out)
        check_left([cell for cell in every if cell not in chosen], experiment, out)
        check_context(
            (cell for cell in chosen if not is_answered(cell, experiment, out)), experiment
        )
        manifest = begun(experiment, chosen, manifest_before(out))
        with turn(out):
            write_json(out / RUN_MANIFEST, manifest)  # ``rtune status`` reads it
        names = [cell.name for cell in missing()]
        by_name = {cell.name: cell for cell in chosen}
        if names:
            for count, name in enumerate(launch(names), 1):
                reason = lacking(by_name[name], experiment, out)
                _print(console, f"[{count}/{len(names)}] {name}: {reason or 'done'}")
        # Cells whose reference had no answers yet when they ended.
        ungraded = [cell.name for cell in missing() if is_answered(cell, experiment, out)]
        if ungraded:
            run_experiment(experiment, out, console, only=ungraded)
        known = conclude(experiment, every, out, manifest, console)
        failed = missing()
        for cell in failed:
            _print(console, f"{cell.name}: {lacking(cell, experiment, out)}; its log ends:")
            for line in _end_of(log_of(cell.name)):
                _print(console, f"    {line}")
        if failed:
            _print(console, f"{len(failed)} of {len(chosen)} cells are missing; run this again")
    return known and not failed


def _end_of(log: Path) -> list[str]:
    """Return the last lines of a log, and first of all where it is."""
    if not log.exists():
        return [f"{log}: no such file; the command has not begun"]
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [f"{log}:", *(line for line in lines[-LAST_LINES:] if line.strip())]


def _print(console: "Console", line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True)
