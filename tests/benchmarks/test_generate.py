import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/generate.py"
TOKENIZER = Path(__file__).parents[1] / "assets/tiny_tokenizer"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], float]:
    folder = tmp_path_factory.mktemp("bench")
    file = folder / "alpaca_eval/reference_gpt4_1106_preview.json"
    file.parent.mkdir()
    asked = [{"instruction": f"Say {'again and ' * n}again"} for n in range(5)]
    file.write_text(json.dumps(asked), encoding="utf-8")
    out = folder / "rows.csv"
    command = [sys.executable, str(SCRIPT), "--toy", "--data", str(folder), "--out", str(out)]
    command += ["--tokenizer", str(TOKENIZER), "--mean-length", "10", "--rows", "2", "--alone", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "| generate | toy, 5 prompts, limit 16 | one-by-one |" in done.stdout
    with out.open(encoding="utf-8", newline="") as content:
        found = list(csv.DictReader(content))
    return {(row["system"], row["metric"]): float(row["value"]) for row in found}


def test_every_way_says_the_same(rows: dict[tuple[str, str], float]) -> None:
    for system in ("rtune", "one-by-one", "file-order"):
        assert rows[system, "differ"] == 0
    assert rows["rtune", "mean_tokens"] == rows["file-order", "mean_tokens"]
    assert 1 <= rows["rtune", "mean_tokens"] < 16, "some reply ends before its limit"


def test_some_prompts_are_asked_alone_and_all_in_batches(
    rows: dict[tuple[str, str], float],
) -> None:
    assert [rows[name, "prompts"] for name in ("one-by-one", "rtune", "file-order")] == [4, 5, 5]
    assert rows["rtune", "times_slower"] == 1
    for system in ("one-by-one", "file-order"):
        slower = rows["rtune", "tokens_per_s"] / rows[system, "tokens_per_s"]
        assert rows[system, "times_slower"] == pytest.approx(slower)
