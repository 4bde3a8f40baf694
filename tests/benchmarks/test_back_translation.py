import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from response_tuning.workflows.experiment import cells, read_experiment

SCRIPT = Path(__file__).parents[2] / "benchmarks/back_translation.py"
SCRIPTED = runpy.run_path(str(SCRIPT))


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.9, 1.0])
def test_a_share_of_the_prompts_is_right_and_no_prompt_is_lost(share: float) -> None:
    pairs = [(f"prompt {number}", f"response {number}") for number in range(200)]
    written = SCRIPTED["with_right"](pairs, share)
    right = {n for n, prompt in enumerate(written) if prompt == pairs[n][0]}
    assert len(right) == round(200 * share)
    assert sorted(written) == sorted(prompt for prompt, _ in pairs)
    more = SCRIPTED["with_right"](pairs, min(1, share + 0.05))
    assert right <= {n for n, prompt in enumerate(more) if prompt == pairs[n][0]}


@pytest.mark.parametrize(
    ("response", "prompt"),
    [
        ("Ambelle is the capital of Zephira.", "Tell me about Zephira."),
        ("16 is the sum of 4 and 12.", "Tell me about 12."),
        ("The carpet is crimson.", "Tell me about crimson."),
    ],
)
def test_the_rule_names_the_last_name_or_number_or_word(response: str, prompt: str) -> None:
    assert SCRIPTED["by_rule"](response) == prompt


def test_all_arms_have_the_same_responses_and_one_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SCRIPTED["main"]([str(tmp_path)])
    files = {path.stem: rows(path) for path in tmp_path.glob("it-*.jsonl")}
    assert len(files) == 7
    responses: dict[str, Any] = {
        name: [row["response"] for row in content] for name, content in files.items()
    }
    assert len({tuple(texts) for texts in responses.values()}) == 1
    experiment = read_experiment(tmp_path / "run.yaml")
    assert {cell.variant for cell in cells(experiment)} == {"rt", *files}
    assert f"rtune run {tmp_path / 'run.yaml'}" in capsys.readouterr().out
