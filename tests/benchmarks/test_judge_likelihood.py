import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from response_tuning.configs import GradeConfig
from response_tuning.grade.benchmark import BENCHMARKS
from response_tuning.grade.selection import Scored
from response_tuning.judging import judging_prompt

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/judge_likelihood.py"))


def test_the_answers_are_those_that_the_benchmark_has_judged() -> None:
    benchmark: Any = BENCHMARKS.get("miniature-judge")(GradeConfig(limit=60))
    prompts = [
        judging_prompt(one.response, one.instruction, reference=None, form="brief")
        for _, answers, _ in SCRIPT["questions"]()
        for one in answers
    ]
    assert prompts == [item.prompt[0].content for item in benchmark.items()]


def test_the_table_has_a_row_for_what_stands_before_the_answer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["judge_likelihood.py"])
    monkeypatch.setitem(SCRIPT["main"].__globals__, "questions", lambda: SCRIPT["questions"](8))
    SCRIPT["main"]()
    lines = capsys.readouterr().out.splitlines()
    assert [line[:16].strip() for line in lines] == ["question", "another question", "nothing"]
    areas = [float(line[18:23]) for line in lines]
    assert areas[0] > 0.6 and len({*areas}) == 3


def test_a_difference_is_that_of_the_areas_with_an_interval_over_questions_and_seeds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = np.array([1.0, 0.0] * 10)
    answers = Scored(np.repeat(np.arange(10), 2), np.zeros(20), good)
    blind = np.zeros((2, 20))
    scores = dict.fromkeys([*SCRIPT["JUDGES"], "likelihood", "likelihood alone"], blind)
    SCRIPT["differences"](scores | {"plain": np.tile(good, (2, 1))}, answers, np.full(20, True))
    lines = dict(line.strip().split(": ") for line in capsys.readouterr().out.splitlines())
    assert lines["plain - self-judge"] == "+0.500 [+0.500, +0.500]"
    assert lines["likelihood - plain"] == "-0.500 [-0.500, -0.500]"
    assert lines["score(y) - self-judge"] == "+0.000 [+0.000, +0.000]"
