import csv
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / "start.py"))


def test_starts_are_measured_beside_python_and_typer(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    command = [sys.executable, str(BENCHMARKS / "start.py"), "--toy", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| start | rtune --help | rtune |" in done.stdout
    with out.open(encoding="utf-8", newline="") as content:
        rows = list(csv.DictReader(content))
    found = {(row["workload"], row["metric"]): float(row["value"]) for row in rows}
    started = ["python", "typer", "rtune --help", "rtune list"]
    metrics = ["wall_s", "cpu_s", "times_python", "times_typer"]
    assert found.keys() == {(name, metric) for name in started for metric in metrics}
    assert found["python", "times_python"] == found["typer", "times_typer"] == 1
    assert all(value > 0 for value in found.values())


STAND_IN = ["-c", "print(input())"]
"""Answers as ``rtune chat`` does, and needs no model."""


@pytest.mark.parametrize(
    "command",
    [STAND_IN, pytest.param(None, marks=pytest.mark.exhaustive)],
    ids=["stand-in", "chat"],
)
def test_the_first_words_of_an_answer_are_waited_for(
    command: list[str] | None, script: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    first_words = script["first_words"]
    if command:
        monkeypatch.setitem(first_words.__globals__, "RTUNE", command)
    assert first_words("miniature", "tulu", {**os.environ}) > 0


def test_a_command_that_fails_is_no_measurement(script: dict[str, Any]) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        script["start"](["-m", "response_tuning", "lsit"], {})
    with pytest.raises(SystemExit, match="rtune chat nowhere/at/all: exit code 2"):
        script["first_words"]("nowhere/at/all", "tulu", None)
