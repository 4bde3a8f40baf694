import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """The script, which keeps what it has counted of a model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        return runpy.run_path(str(BENCHMARKS / "cost_model.py"))


def test_what_is_printed_tells_the_measured_from_the_predicted_and_the_published(
    script: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["cost_model.py", "--device", "H100"])
    script["main"]()
    measured, training, answering, published = capsys.readouterr().out.split("\n\nP")
    assert measured.startswith("LIMA, response tuning, measured: 1,000 examples")
    assert training.startswith("REDICTED for H100, not measured: training")
    assert "| 70B | full | 1 | does not fit |" in training
    assert answering.startswith("REDICTED, not measured: answering")
    assert published.startswith("ublished by others")


def test_parameters_are_those_of_the_models(script: dict[str, Any]) -> None:
    expected = {"1B": 1_235_814_400, "3B": 3_212_749_824, "8B": 8_030_261_248}
    for name, count in (expected | {"70B": 70_553_706_496}).items():
        assert script["run"](name, "full", script["H200"]).size.total == count


def test_the_shares_that_training_reaches_are_those_that_were_published(
    script: dict[str, Any],
) -> None:
    for point in list(script["published"]())[:2]:
        data = script["Data"]((point.window,), 1.0, 64)
        fit = script["Fit"](point.window, point.checkpointing, 0)
        speed = script["tokens_per_second"](point.run, data, fit)
        assert speed == pytest.approx(point.tokens_per_second, rel=0.05)


def test_devices_that_share_a_step_are_faster_only_while_they_have_work(
    script: dict[str, Any],
) -> None:
    few, many = script["lima"](64), script["lima"](640)

    def speed(devices: int, data: Any) -> float:
        one = script["run"]("8B", "lora", script["H200"], devices)
        return float(script["tokens_per_second"](one, data, script["fitted"](one, data)))

    assert 6 * speed(1, few) < speed(8, few) <= 8 * speed(1, few)
    assert speed(64, few) < speed(8, few), (
        "one example each, and the longest keeps the rest waiting"
    )
    assert speed(64, many) > 3 * speed(64, few)


def test_activations_are_computed_twice_where_memory_is_short(script: dict[str, Any]) -> None:
    data = script["lima"](64)
    fits = {
        name: script["fitted"](script["run"]("8B", "lora", script[name]), data)
        for name in ("H200", "A100")
    }
    assert not fits["H200"].checkpointing
    for name, fit in fits.items():
        assert fit.tokens >= max(data.lengths)
        assert fit.used < script[name].memory
    small = script["A100"]._replace(memory=26e9)
    assert script["fitted"](script["run"]("8B", "lora", small), data).checkpointing
    assert script["fitted"](script["run"]("8B", "full", small), data) is None


def test_answering_many_at_once_costs_a_step_what_one_costs_until_products_bind(
    script: dict[str, Any],
) -> None:
    size = script["run"]("8B", "full", script["H200"]).size
    speeds = [script["answering"](size, script["H200"], rows) for rows in (1, 16, 10_000, 20_000)]
    assert speeds[1] == pytest.approx(16 * speeds[0])
    assert speeds[2] == pytest.approx(speeds[3])
