import io
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from response_tuning.workflows.launch import run_launched
from response_tuning.workflows.status import show_status
from tests.fixtures.experiments import CELLS, Make

TABLES = ("report/results.csv", "report/comparisons.csv")


def launched(
    make: Make, finished: Path, run: Path, started: list[str], failing: str = ""
) -> tuple[bool, str]:
    """Launch commands that leave the cells of a finished run, but one fails."""

    def log_of(cell: str) -> Path:
        return run / ".jobs" / f"{cell}.log"

    def launch(cells: Sequence[str]) -> Iterator[str]:
        for cell in cells:
            started.append(cell)
            if cell == failing:
                log_of(cell).parent.mkdir(parents=True)
                log_of(cell).write_text("tuning\nrtune: no space left\n")
            else:
                shutil.copytree(finished / cell, run / cell)
            yield cell

    out = io.StringIO()
    whole = run_launched(make(), run, Console(file=out, width=200), launch, log_of)
    return whole, out.getvalue()


def test_a_failed_cell_is_named_with_its_last_lines_and_the_same_command_takes_it_up(
    make: Make, uninterrupted: Path, tmp_path: Path
) -> None:
    run, started = tmp_path / "run", list[str]()
    whole, printed = launched(make, uninterrupted, run, started, failing="rt/seed-1")
    assert not whole
    assert started == CELLS
    assert "[2/4] rt/seed-1: not started\n" in printed
    assert "[4/4] base/seed-1: done\n" in printed
    assert f"rt/seed-1: not started; its log ends:\n    {run}/.jobs/rt/seed-1.log:\n" in printed
    assert "    rtune: no space left\n1 of 4 cells are missing; run this again\n" in printed

    started.clear()
    whole, _ = launched(make, uninterrupted, run, started)
    assert whole
    assert started == ["rt/seed-1"]
    for table in TABLES:
        assert (run / table).read_bytes() == (uninterrupted / table).read_bytes()
    started.clear()
    assert launched(make, uninterrupted, run, started)[0]
    assert started == []


def test_status_has_a_line_for_each_cell_while_a_launcher_is_at_work(make: Make, run: Path) -> None:
    shutil.rmtree(run / "base/seed-1")
    out = io.StringIO()
    show_status(run, Console(file=out, width=200), watch=False)
    lines = [line.split() for line in out.getvalue().splitlines()]
    assert lines[0] == ["cell", "state", "progress", "speed", "held", "by"]
    assert [line[:2] for line in lines[1:4]] == [[cell, "done"] for cell in CELLS[:3]]
    assert lines[4] == ["base/seed-1", "not", "started"]
    assert lines[5] == ["3", "of", "4", "cells", "done"]
