import sys
import time
from pathlib import Path

import pytest

from response_tuning.cli.jobs import same_command


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for Python that notes what it is started with, and ends when told to."""
    program = tmp_path / "python"
    program.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/$$.started\n'
        f"while [ ! -e {tmp_path}/end ]; do sleep 0.05; done\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr(sys, "argv", ["rtune", "run", "a b.yaml", "--jobs", "3"])
    return tmp_path


def started(folder: Path, number: int) -> list[str]:
    while len(found := [path.read_text() for path in folder.glob("*.started")]) < number:
        time.sleep(0.01)
    return found


def test_the_same_command_is_started_with_one_job_each(python: Path) -> None:
    with same_command(2) as wait:
        lines = started(python, 2)
        (python / "end").touch()
        wait()
    assert lines == ["-m response_tuning run a b.yaml --jobs 3 --jobs 1\n"] * 2


def test_the_others_end_with_this_process(python: Path) -> None:
    with pytest.raises(KeyboardInterrupt), same_command(1):
        started(python, 1)
        raise KeyboardInterrupt  # the others never end by themselves: the exit must not hang


def test_one_job_starts_nothing(python: Path) -> None:
    with same_command(0) as wait:
        wait()
    assert not [*python.glob("*.started")]
