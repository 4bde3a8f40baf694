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
    "per_seed.csv",
    "report.md",
    "report.html",
    "at-a-glance.svg",
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


def test_a_report_is_eight_files(graded: Path) -> None:
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


def test_tables_and_figures_come_in_the_formats_that_are_asked_for(graded: Path) -> None:
    (graded / "report").mkdir()
    (graded / "report" / "accuracy.svg").write_text("of an earlier version")
    report(graded, SERIES, ReportConfig(formats=("latex", "markdown"), figures=("pdf", "png")))
    found = files(graded)
    assert {name for name in found if name not in FILES} == {
        *("report.tex", "at-a-glance.pdf", "at-a-glance.png"),
        *("dose-response.pdf", "dose-response.png"),
    }
    assert FILES - {*found} == {"at-a-glance.svg", "dose-response.svg"}
    report(graded, SERIES, ReportConfig(formats=()))
    assert files(graded).keys() == FILES - {"report.md"}


def test_the_value_of_each_seed_has_a_line(graded: Path, total: Callable[..., None]) -> None:
    total("rt", {"rate": (0.4, 0.3, 0.5)}, seed=1)
    report(graded, SERIES[:1], ReportConfig())
    lines = files(graded)["per_seed.csv"].decode().splitlines()
    assert lines[0] == "variant,seed,benchmark,metric,value"
    assert {*lines[1:]} == {
        *("rt,0,quiz,strict,0.333333", "rt,1,quiz,strict,0.666667"),
        *("rt,0,quiz,refusal,0.333333", "rt,1,quiz,refusal,0.666667"),
        "rt,1,quiz,rate,0.4",
    }


def test_chosen_metrics_are_all_that_tables_show_and_the_csv_has_every_metric(
    graded: Path, grade: Grade
) -> None:
    grade("rt", {"beauty": [1, 0, 1]}, benchmark="own")
    report(graded, SERIES, ReportConfig(baselines=("rt",), metrics=("beauty", "refusal")))
    text = files(graded)["report.md"].decode()
    assert "| rt | own | beauty | 66.7 |" in text
    assert "| rt | quiz | refusal | 50.0 |" in text
    assert "strict" not in text
    assert "rt,quiz,strict,0.5," in files(graded)["results.csv"].decode()
    report(graded, SERIES, ReportConfig(metrics=("beauty",)))
    assert "quiz" not in files(graded)["report.md"].decode()


def test_a_metric_that_no_benchmark_has_is_refused_with_the_nearest_one(graded: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        report(graded, SERIES, ReportConfig(metrics=("strct",)))
    assert str(caught.value) == (
        "unknown metric in report.metrics 'strct': did you mean 'strict'? known are strict, refusal"
    )


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


def test_answers_with_a_confidence_get_curves_and_thresholds(run: Path, grade: Grade) -> None:
    values = {"strict": [1.0] * 30 + [0.0] * 10, "confidence": [-n / 10 for n in range(40)]}
    grade("rt", values)
    grade("base", {**values, "confidence": [-1.0] * 40})
    variants = [Variant("rt", ""), Variant("base", "")]
    report(run, variants, CONFIG)
    found = files(run)
    assert found.keys() >= {"selective.csv", "abstention.csv", "risk-coverage.svg"}
    lines = found["selective.csv"].decode().splitlines()
    areas = {line.split(",")[0]: float(line.split(",")[4]) for line in lines[1:]}
    assert areas["base"] == pytest.approx(0.25)  # one confidence for all tells nothing
    assert areas["rt"] < 0.05
    assert "rt,0,quiz,strict,0.2,-3,0.775,0.0322581" in found["abstention.csv"].decode()
    assert "## Selective answering" in found["report.md"].decode()
    assert "Selective answering" in found["report.html"].decode()
    grade("rt", {"strict": values["strict"]})
    grade("base", {"strict": values["strict"]})
    report(run, variants, CONFIG)
    assert not files(run).keys() & {"selective.csv", "abstention.csv", "risk-coverage.svg"}
