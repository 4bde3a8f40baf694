import csv
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TOKENIZER = Path(__file__).parents[1] / "assets/tiny_tokenizer"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / "data_size.py"))


@pytest.fixture
def data(tmp_path: Path, script: dict[str, Any]) -> Path:
    """Public files in small: seven rows each."""
    for name in script["FILES"]:
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = [(f"What is {n}?", f"It is {name} {'and so on ' * n}, said {n}.") for n in range(7)]
        rows = [{"instruction": asked, "input": "", "output": said} for asked, said in texts]
        turns = [{"messages": [{"content": asked}, {"content": said}]} for asked, said in texts]
        lines = "".join(json.dumps(turn) + "\n" for turn in turns)
        path.write_text(lines if name.endswith(".jsonl") else json.dumps(rows), encoding="utf-8")
    return tmp_path / "data"


@pytest.mark.parametrize("own_processes", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
def test_every_stage_is_measured_beside_the_raw_tokenizer(
    data: Path,
    tmp_path: Path,
    script: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    own_processes: bool,
) -> None:
    def in_this_process(stage: str, folder: Path, rows: int, arguments: Any) -> Any:
        arguments.stage = stage
        return script["run_stage"](folder, rows, arguments)

    main = script["main"]
    if not own_processes:  # each of them would import torch, and nothing else takes as long
        main.__globals__["in_a_process"] = in_this_process
    out = tmp_path / "rows.csv"
    command = [str(BENCHMARKS / "data_size.py"), "--rows", "150", "--data", str(data)]
    command += ["--tokenizer", str(TOKENIZER), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", command)
    main()
    printed = capfd.readouterr().out
    assert "| 150 | tokenize |" in printed
    assert "| 150 rows | 8 |" in printed
    with out.open(encoding="utf-8", newline="") as content:
        rows = list(csv.DictReader(content))
    assert {row["benchmark"] for row in rows} == {"data"}
    found = {(row["workload"], row["metric"]): float(row["value"]) for row in rows}
    own = {metric: value for (workload, metric), value in found.items() if workload == "150 rows"}
    assert {"tokens_per_s", "of_raw_speed", "plan_seconds", "peak_rss_mb"} <= own.keys()
    # So few rows may take less time than set-up, which of_raw_speed is without.
    assert all(value > 0 for metric, value in own.items() if not metric.startswith("of_raw"))


def test_beside_the_raw_tokenizer_set_up_counts_apart(script: dict[str, Any]) -> None:
    encoding = {"cpu": 6.0, "setup_cpu": 1.0, "raw_cpu": 4.0, "tokens": 1200, "peak": 300.0}
    found = {
        "prepare": {"cpu": 2.0, "peak": 100.0},
        "encode": encoding,
        "plan": {"cpu": 1.0, "peak": 200.0},
        "balance": {"LIMA": {"2": {"least": 0.5}}},
    }
    rows = {(row.workload, row.metric): row.value for row in script["csv_rows"](1000, found)}
    assert rows == {
        ("1,000 rows", "tokens_per_s"): 200,
        ("1,000 rows", "setup_seconds"): 1,
        ("1,000 rows", "of_raw_speed"): 4 / 5,
        ("1,000 rows", "of_raw_speed_read_to_plan"): 4 / 8,
        ("1,000 rows", "plan_seconds"): 1,
        ("1,000 rows", "peak_rss_mb"): 300,
        ("LIMA", "balance_2"): 0.5,
    }


def test_a_step_of_lima_is_even_on_two_four_and_eight_processes(script: dict[str, Any]) -> None:
    histogram = json.loads((BENCHMARKS / "lengths.json").read_text(encoding="utf-8"))["lima-rt"]
    lengths = [min(tokens, 2048) for tokens, examples, _ in histogram for _ in range(examples)]
    for world in script["WORLDS"]:
        assert script["shared"](lengths, world)["least"] >= 0.95


def test_the_balance_of_a_step_is_its_emptiest_process_beside_the_mean(
    script: dict[str, Any],
) -> None:
    found = script["shared"]([2, 20, 2], 2, 3)  # 20 tokens, and 2 + 2
    assert found == pytest.approx({"least": 4 / 12, "median": 4 / 12, "epoch": 12 / 20})
    assert script["shared"]([7] * 6, 3)["least"] == 1.0
