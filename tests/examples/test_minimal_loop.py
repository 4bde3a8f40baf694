import ast
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from safetensors.torch import load_file
from transformers import AutoTokenizer

from response_tuning.artifacts import Example, write_json, write_jsonl
from response_tuning.configs import FinetuneConfig
from response_tuning.finetune.run import finetune

SCRIPT = Path(__file__).parents[2] / "examples" / "minimal_loop.py"
# One is longer than the window, and one ends an epoch in a batch of three.
RESPONSES = [f"It is {n}, of course. " * (1 + n % 4) + "Zürich 🙂" for n in range(19)]
STEPS, BATCH, WINDOW, RATE = 6, 8, 80, 1e-3


@pytest.fixture(scope="module")
def tuned(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model and the losses that ``rtune finetune`` leaves."""
    data, out = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("tuned")
    write_jsonl(
        data / "examples.jsonl", [Example(row=i, response=text) for i, text in enumerate(RESPONSES)]
    )
    audit = {"rows": 19, "rows_kept": 19, "examples": 19, "dropped": {}}
    write_json(data / "audit.json", audit | {"source": {"name": "answers.jsonl"}})
    config = FinetuneConfig(
        base_model=str(tiny_base),
        method="full",
        learning_rate=RATE,
        max_steps=STEPS,
        examples_per_step=BATCH,
        window=WINDOW,
        device="cpu",
    )
    return finetune(config, data, out, Console())


def test_the_loop_takes_the_steps_of_rtune_finetune(
    tuned: Path,
    tiny_base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    answers, out = tmp_path / "answers.jsonl", tmp_path / "out"
    lines = (json.dumps({"response": text}) + "\n" for text in RESPONSES)
    answers.write_text("".join(lines), encoding="utf-8")
    options = {
        "--steps": STEPS,
        "--batch-size": BATCH,
        "--window": WINDOW,
        "--learning-rate": RATE,
    }
    flags = [str(part) for option in options.items() for part in option]
    monkeypatch.setattr(sys, "argv", ["minimal_loop.py", str(tiny_base), str(answers), str(out)])
    sys.argv += flags
    runpy.run_path(str(SCRIPT), run_name="__main__")

    def losses(text: str) -> list[float]:
        return [json.loads(line)["loss"] for line in text.splitlines() if line.startswith("{")]

    found = losses(capsys.readouterr().out)
    expected = losses((tuned / "metrics.jsonl").read_text(encoding="utf-8"))
    assert len(found) == STEPS
    assert found == pytest.approx(expected, abs=1e-5)
    weights, ours = load_file(out / "model.safetensors"), load_file(tuned / "model.safetensors")
    assert weights.keys() == ours.keys()
    assert max(float((weights[name] - ours[name]).abs().max()) for name in ours) < 1e-4
    conversation: Any = [
        {"role": "user", "content": "Why?"},
        {"role": "assistant", "content": "Because."},
        {"role": "user", "content": "And at dusk?"},
    ]
    minimal, full = (
        AutoTokenizer.from_pretrained(folder).apply_chat_template(
            conversation, add_generation_prompt=True, tokenize=False
        )
        for folder in (out, tuned)
    )
    assert minimal == full


def test_the_loop_is_short_and_uses_none_of_our_code() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name) or ""
        for node in ast.walk(ast.parse(text))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    }
    assert imported == {"argparse", "collections.abc", "json", "pathlib", "torch", "transformers"}
