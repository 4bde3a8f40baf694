import runpy
from pathlib import Path

import pytest

from response_tuning.artifacts import write_jsonl
from response_tuning.finetune.confidence import Confidence

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/confidences.py"))


def run(folder: Path, confidences: list[float]) -> str:
    model = folder / "plain" / "seed-3" / "finetune"
    model.mkdir(parents=True)
    lines = [
        Confidence(row=n, turn=0, confidence=value, tokens=n + 1)
        for n, value in enumerate(confidences)
    ]
    write_jsonl(model / "confidence.jsonl", lines)
    return str(folder)


def test_each_seed_has_its_correlations_and_the_lengths_of_both_halves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without = run(tmp_path / "rt", [-4.0, -3.0, -2.0, -1.0])
    prompted = run(tmp_path / "it", [-1.0, -2.0, -3.0, -4.0])
    monkeypatch.setattr("sys.argv", ["confidences.py", without, prompted])
    SCRIPT["main"]()
    assert capsys.readouterr().out.splitlines() == [
        "seed-3 without prompts: with length 1.00, "
        "mean length of the sure half 3.5, of the other 1.5",
        "seed-3 with prompts: with length -1.00, "
        "mean length of the sure half 1.5, of the other 3.5",
        "seed-3 both: -1.00 (4 rows)",
    ]
