import csv
import importlib.util
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/finetune_cpu.py"
PEERS = {"trl-packed", "trl-padded"} if importlib.util.find_spec("trl") else set()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], float]:
    out = tmp_path_factory.mktemp("bench") / "rows.csv"
    toy = ["--workloads", "miniature-rt", "--examples", "3", "--repetitions", "1", "--steps", "2"]
    command = [sys.executable, str(SCRIPT), *toy, "--threads", "1", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| finetune-cpu | miniature-rt | rtune |" in done.stdout
    assert ("TRL is not installed" in done.stderr) == (not PEERS)
    with out.open(encoding="utf-8", newline="") as content:
        found = list(csv.DictReader(content))
    assert {(row["benchmark"], row["workload"]) for row in found} == {
        ("finetune-cpu", "miniature-rt")
    }
    return {(row["system"], row["metric"]): float(row["value"]) for row in found}


def test_every_system_that_is_there_is_measured(rows: dict[tuple[str, str], float]) -> None:
    common = {"tokens_per_s", "supervised_tokens_per_s", "peak_rss_mb", "loss"}
    beside = common | {"times_slower", "loss_difference"}
    own = {("rtune", metric) for metric in common | {"gemm_fraction"}}
    assert rows.keys() == own | {(s, m) for s in PEERS | {"reference"} for m in beside}
    assert all(value > 0 for (_, metric), value in rows.items() if metric != "loss_difference")
    assert rows["rtune", "supervised_tokens_per_s"] < rows["rtune", "tokens_per_s"]


def test_all_systems_train_the_same(rows: dict[tuple[str, str], float]) -> None:
    for system in PEERS | {"reference"}:
        assert rows[system, "loss_difference"] <= 1e-4
        assert rows[system, "loss"] == pytest.approx(rows["rtune", "loss"], abs=1e-4)


def test_a_workload_is_repeated_only_while_its_time_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    turns = runpy.run_path(str(SCRIPT))["turns"]
    seconds, clock = {"long": 300.0, "short": 60.0}, [0.0]
    taken = []
    for turn in turns(list(seconds), 3, 9, lambda: clock[0]):
        taken.append(turn)
        clock[0] += seconds[turn[1]]
    assert taken == [(0, "long"), (0, "short"), (1, "short"), (2, "short")]
    assert [*turns(["long"], 1, 0)] == [(0, "long")]
