from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--set", "grade.paths.prompts=q.jsonl"), "--set needs a prediction: add --predict"),
        (("--predict", "prompts"), "prompts: name your file"),
        (("--predict", "prompts", "--set", "grade.paths.prompts=q.jsonl"), "q.jsonl: no such file"),
        (("--predict", "prompts", "--set", "grade.limit=3"), "grade.limit has no effect"),
        (("--predict", "miniature-seen", "--set", "grade.paths.prompts=q"), "of this run in grade"),
        (("--predict", "miniature-seen", "--set", "grade.judge.engine=openai"), "grade.judge"),
        (("--predict", "ifeval"), "or 'prompts' with expected words"),
        (("--predict", "prompts", "--set", "data.path=q"), "expected grade.KEY=VALUE"),
    ],
)
def test_questions_of_a_prediction_are_checked_before_anything_is_measured(
    rtune: Run, tmp_path: Path, flags: tuple[str, ...], said: str
) -> None:
    result = rtune("probe", "miniature", "miniature", *flags, "--out", tmp_path / "probe")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert said in result.err
    assert not (tmp_path / "probe").exists()
