import contextlib
import csv
import io
import json
import runpy
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
    prompts = [{"instruction": f"Say {'again and ' * n}again"} for n in range(5)]
    file.write_text(json.dumps(prompts), encoding="utf-8")
    out, printed = folder / "rows.csv", io.StringIO()
    command = [str(SCRIPT), "--toy", "--data", str(folder), "--out", str(out)]
    command += ["--tokenizer", str(TOKENIZER), "--mean-length", "10", "--rows", "2", "--alone", "4"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.syspath_prepend(str(SCRIPT.parent))
        patch.setattr(sys, "argv", command)
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert "| generate | toy, 5 prompts, limit 16 | one-by-one |" in printed.getvalue()
    with out.open(encoding="utf-8", newline="") as content:
        found = list(csv.DictReader(content))
    return {(row["system"], row["metric"]): float(row["value"]) for row in found}


def test_every_way_gives_the_same_replies(rows: dict[tuple[str, str], float]) -> None:
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
