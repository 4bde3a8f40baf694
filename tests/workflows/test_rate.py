import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Completion, Message, Sampling, write_jsonl

Run = Callable[..., Any]


@pytest.fixture
def answers(tmp_path: Path) -> list[object]:
    """The flags of a study of two variants that answered three prompts."""
    flags: list[object] = []
    for variant in ("it", "rt"):
        file = tmp_path / f"{variant}.jsonl"
        write_jsonl(
            file,
            [
                Completion(
                    item_id=str(number),
                    prompt=(Message(role="user", content=f"Question {number}?"),),
                    response=f"{variant} says {number}",
                    finish_reason="stop",
                    key=f"{variant}{number}",
                    model=variant,
                    template="",
                    sampling=Sampling(),
                )
                for number in range(3)
            ],
        )
        flags += ["--answers", f"{variant}={file}"]
    return flags


def test_a_page_is_served_until_it_is_interrupted(answers: list[object], tmp_path: Path) -> None:
    command = ["rate", tmp_path / "study", "--rater", "ann", *answers]
    with subprocess.Popen(
        [sys.executable, "-m", "response_tuning", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as serving:
        assert serving.stdout is not None
        said = serving.stdout.readline()
        address = re.match(r"(http://127\.0\.0\.1:\d+/) \(0 of 3 tasks are rated", said)
        assert address, said
        with urllib.request.urlopen(address[1]) as page:
            assert "Question" in page.read().decode()
        serving.send_signal(signal.SIGINT)
        assert serving.wait(60) == 0
        assert serving.stderr is not None
        assert serving.stderr.read() == ""


def test_scores_are_exported_in_the_layout_of_a_run(
    rtune: Run, answers: list[object], tmp_path: Path
) -> None:
    from response_tuning.grade.raters.study import Session, TaskRating

    study, out = tmp_path / "study", tmp_path / "scores"
    assert rtune("rate", study, *answers).code == 0
    nothing = rtune("rate", study, "--export", out)
    assert (nothing.code, nothing.err) == (2, f"rtune: {study}: nothing has been rated yet\n")
    session = Session(study, "ann")
    for at in range(len(session.tasks)):
        session.rate(at, TaskRating(levels=("excellent", "sufficient"), more_helpful="left"))
    result = rtune("rate", study, "--export", out)
    assert result.code == 0, result.err
    assert "ann: 3 of 3 tasks" in result.out
    lines = (out / "rt/seed-0/grade/human-rating.jsonl").read_text().splitlines()
    assert {json.loads(line)["metric"] for line in lines} >= {"acceptable", "win_rate"}


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ([], "rate needs --rater NAME to serve the page, or --export DIR"),
        (["--answers", "it"], "--answers it: expected NAME=FILE"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    rtune: Run, tmp_path: Path, flags: list[str], error: str
) -> None:
    result = rtune("rate", tmp_path / "study", *flags)
    assert (result.code, result.err) == (2, f"rtune: {error}\n")
    assert not (tmp_path / "study").exists()
