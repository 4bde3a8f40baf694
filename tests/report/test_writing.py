import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from response_tuning.errors import ConfigError
from response_tuning.report import Variant, report, summary
from response_tuning.report_config import ReportConfig

Grade = Callable[..., None]

CONFIG = ReportConfig(baselines=("rt",))
SERIES = [Variant("rt", "", "rt", 0), Variant("rt-9", "", "rt", 9)]
FILES = {
    "results.csv",
    "comparisons.csv",
    "trends.csv",
    "report.md",
    "report.html",
    "accuracy.svg",
    "dose-response.svg",
}


@pytest.fixture
def graded(run: Path, grade: Grade) -> Path:
    for variant in SERIES:
        for seed in (0, 1):
            grade(variant.name, {"refusal": [0, 1, seed], "strict": [1, 0, seed]}, seed=seed)
    return run


def files(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "report").iterdir()}


def test_a_report_is_seven_files(graded: Path) -> None:
    report(graded, SERIES, CONFIG)
    assert files(graded).keys() == FILES
    assert summary(graded, SERIES).splitlines()[2:] == [
        "rt      50.0     50.0",
        "rt-9    50.0     50.0",
    ]


def test_the_plot_of_an_earlier_report_does_not_outlive_its_series(graded: Path) -> None:
    report(graded, SERIES, CONFIG)
    report(graded, SERIES[:1], CONFIG)
    assert files(graded).keys() == FILES - {"dose-response.svg"}


def test_the_same_run_gives_the_same_bytes_in_another_process(graded: Path) -> None:
    report(graded, SERIES, CONFIG)
    before = files(graded)
    script = (
        "from pathlib import Path; from response_tuning.report import *;"
        "from response_tuning.report_config import ReportConfig;"
        f"report(Path({str(graded)!r}), {SERIES!r}, {CONFIG!r})"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "3"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    assert files(graded) == before


def test_nothing_is_written_when_a_baseline_is_unknown(graded: Path) -> None:
    with pytest.raises(ConfigError, match="unknown baseline 'it': known are rt, rt-9"):
        report(graded, SERIES, ReportConfig(baselines=("it",)))
    assert not (graded / "report").exists()


def test_importing_the_stage_loads_no_heavy_library() -> None:
    statement = "import response_tuning.report, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", statement], check=True, capture_output=True, text=True
    )
    heavy = {"torch", "transformers", "scipy", "matplotlib", "jinja2", "rich"}
    assert not heavy & {*done.stdout.split()}
