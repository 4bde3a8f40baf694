import csv
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


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
    expected = {(name, metric) for name in started for metric in metrics}
    assert found.keys() == expected | {("rtune chat miniature", "first_words_s")}
    assert found["python", "times_python"] == found["typer", "times_typer"] == 1
    assert all(value > 0 for value in found.values())


def test_a_command_that_fails_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    script: dict[str, Any] = runpy.run_path(str(BENCHMARKS / "start.py"))
    with pytest.raises(subprocess.CalledProcessError):
        script["start"](["-m", "response_tuning", "lsit"], {})
    with pytest.raises(SystemExit, match="rtune chat nowhere/at/all: exit code 2"):
        script["first_words"]("nowhere/at/all", "tulu", None)
