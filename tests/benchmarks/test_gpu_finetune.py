import csv
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CASE = "8b-lora16-lima"


def run(*options: str) -> str:
    command = [sys.executable, str(BENCHMARKS / "gpu_finetune.py"), "--toy", "--only", CASE]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return runpy.run_path(str(BENCHMARKS / "gpu_finetune.py"))


def test_a_case_is_measured_at_toy_size(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    printed = run("--systems", "rtune", "--seconds", "0.01", "--out", str(out))
    assert f"| finetune-gpu | {CASE} | rtune |" in printed
    assert "Device: cpu" in printed
    assert "Not measured" not in printed
    with out.open(encoding="utf-8", newline="") as content:
        found = {row["metric"]: float(row["value"]) for row in csv.DictReader(content)}
    assert found["tokens_per_s"] > found["supervised_tokens_per_s"] > 0
    assert found["steps"] >= 1
    assert (found["tokens_at_once"], found["checkpointing"], found["backed_off"]) == (4096, 0, 0)


def test_a_measurement_that_does_not_end_costs_its_own_row_alone() -> None:
    printed = run("--systems", "rtune", "--limit", "0.01")
    assert f"Not measured:\n- {CASE}, rtune: took longer than 0 s" in printed
    printed = run("--systems", "rtune", "--minutes", "0")
    assert f"- {CASE}, rtune: no time was left" in printed


def test_every_case_has_a_shape_and_lengths(
    script: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = runpy.run_path(str(BENCHMARKS / "gpu_finetune_case.py"))
    assert tuple(one["SYSTEMS"]) == script["SYSTEMS"]
    for case in script["CASES"].values():
        job = case._asdict() | {"examples": 2}
        assert case.model in one["SHAPES"]
        for document in one["documents"](job, 50):
            ids, labels = document["input_ids"], document["labels"]
            assert len(ids) == len(labels) <= case.window
            assert set(labels) > {-100}
            assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))


@pytest.mark.parametrize(("case", "flops"), [(CASE, 4), ("8b-full-lima", 6)])
def test_speed_and_mfu_are_of_the_tokens_of_examples(
    script: dict[str, Any], case: str, flops: int
) -> None:
    result = {
        "tokens": 20_000,
        "supervised_tokens": 10_000,
        "seconds": 2.0,
        "steps": 1,
        "parameters": 8_000_000_000,
        "device": "NVIDIA H200",
        "peak_gb": 70.0,
    }
    peak = script["peak_of"](result["device"], None)
    rows = list(script["rows_of"](case, "trl-best", result, peak))
    found = {row.metric: row.value for row in rows}
    assert found["tokens_per_s"] == 10_000
    assert found["supervised_tokens_per_s"] == 5_000
    assert found["mfu"] == pytest.approx(10_000 * flops * 8e9 / 989e12)
    assert found["peak_gb"] == 70.0
    ours = list(script["rows_of"](case, "rtune", result | {"seconds": 1.0}, None))
    (ratio,) = script["ratios"]([*rows, *ours])
    assert ratio[1:] == (case, "trl-best", "times_slower", 2.0)


def test_a_gpu_that_is_not_known_has_no_mfu_unless_its_peak_is_given(
    script: dict[str, Any],
) -> None:
    peak_of = script["peak_of"]
    assert peak_of("NVIDIA H100 PCIe", None) == 756.0
    assert peak_of("cpu", None) is None
    assert peak_of("cpu", 12.0) == 12.0
