import runpy
from pathlib import Path
from typing import Any

import pytest
import yaml

from response_tuning.artifacts import Example, read_jsonl, write_jsonl

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/own_halves.py"))
HALVES = [
    ("It rained.", "It snowed."),
    ("What is it?", "It is a pen."),
    ("It rained.", "It snowed. Then it rained."),
    ("It rained.", "Name it. It is a pen."),
]


def test_arms_differ_by_requests_and_by_the_number_of_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [Example(row=n, instruction=a, response=b) for n, (a, b) in enumerate(HALVES)]
    for documents in ("all", "statements"):
        (tmp_path / documents).mkdir()
        write_jsonl(tmp_path / documents / "examples.jsonl", rows)
    monkeypatch.setattr("sys.argv", ["own_halves.py", str(tmp_path)])
    SCRIPT["main"]()

    def kept(arm: str) -> list[int]:
        return sorted(one.row for one in read_jsonl(tmp_path / f"{arm}.jsonl", Example))

    assert kept("all") == [0, 1, 2, 3]
    assert kept("all-no-request") == [0, 2]
    assert kept("all-one-sentence") == kept("statements-one-sentence") == [0, 1]
    assert kept("all-longer") == [2, 3]
    recipe: dict[str, Any] = yaml.safe_load((tmp_path / "own-halves.yaml").read_text("utf-8"))
    assert list(recipe["variants"]) == list(SCRIPT["ARMS"])
    assert recipe["finetune"]["objective"] == "instruction-tuning"
