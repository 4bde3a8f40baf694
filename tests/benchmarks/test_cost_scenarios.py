import math
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PRICES = (2.0, 3.0, 10.0)


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return runpy.run_path(str(BENCHMARKS / "cost_scenarios.py"))


def test_what_is_printed_says_that_it_is_estimated_and_at_which_price(
    script: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cost_scenarios.py", "--gpu-hour", "3"])
    script["main"]()
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("ESTIMATED, not measured: H200 at 3.00 dollars an hour")
    assert len([line for line in lines if line.startswith("| 70B")]) == 4
    page = (BENCHMARKS.parent / "docs" / "scaling.md").read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["cost_scenarios.py"])
    script["main"]()
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("| "):
            assert line in page, "docs/scaling.md has the table of another version"


def test_gpus_are_paid_for_while_they_wait_for_the_last_cells(script: dict[str, Any]) -> None:
    prices = script["Prices"](*PRICES)
    cells, judge = script["grid"](prices, cells=33, gpus=32)
    hours = script["cell"]()
    assert cells.hours == pytest.approx(2 * hours)
    assert cells.gpu_hours == pytest.approx(33 * hours)
    assert cells.dollars == pytest.approx(2 * hours * 32 * 2.0)
    assert math.isnan(judge.hours), "nobody knows a judge's rate limit"


def test_a_judge_costs_what_it_reads_and_writes(script: dict[str, Any]) -> None:
    prices = script["Prices"](*PRICES)
    one = script["judged"]("", 1, prices).dollars
    mean = sum(script["lima"](64).lengths) / 1000
    assert one == pytest.approx(((700 + mean) * 3.0 + 200 * 10.0) / 1e6)
    assert script["judged"]("", 1_000_000, prices).dollars == pytest.approx(1e6 * one)


def test_a_model_that_does_not_fit_has_no_price(script: dict[str, Any]) -> None:
    job = script["run"]("70B", "full", script["H200"], 8)
    with pytest.raises(ValueError, match="do not fit 8 devices"):
        script["training"](job, script["lima"](512), 1.0)
