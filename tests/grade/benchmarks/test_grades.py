import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from response_tuning.artifacts import (
    Completion,
    Message,
    Request,
    Sampling,
    Score,
    read_json,
    read_jsonl,
    write_jsonl,
)
from response_tuning.configs import GradeConfig
from response_tuning.errors import DataError
from response_tuning.grade import grade

PROMPTS: tuple[dict[str, str], ...] = (
    {"prompt": "What is 1 + 1?", "expected": "2"},
    {"prompt": "What is 2 + 2?", "expected": "4"},
    {"prompt": "What is 3 + 3?", "expected": "6"},
    {"prompt": "How are you?"},
)
ANSWERS = ("It is 2.", "It is 5.", "It is 6.", "")
SAMPLING = Sampling(max_new_tokens=8)
Judge: TypeAlias = Callable[[str], float | None]
Graded: TypeAlias = Callable[[str, Judge], tuple[list[Score], dict[str, float], list[str]]]


@pytest.fixture
def graded(tmp_path: Path) -> Graded:
    """Grade ``ANSWERS`` by a rule: scores, totals, and what the judge was shown."""
    file, answers, out = (tmp_path / name for name in ("p.jsonl", "a.jsonl", "s.jsonl"))
    completions = [
        Completion(
            item_id=str(number),
            prompt=(Message(role="user", content=str(row["prompt"])),),
            response=answer,
            finish_reason="stop",
            model="m",
            template="t",
            sampling=SAMPLING,
            key=str(number),
        )
        for number, (row, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True))
    ]
    write_jsonl(answers, completions)

    def graded(name: str, judge: Judge) -> tuple[list[Score], dict[str, float], list[str]]:
        file.write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
        shown: list[str] = []

        def ask(requests: Iterable[Request]) -> Iterator[Completion]:
            for request in requests:
                shown.append(request.prompt[0].content)
                reply = completions[0].model_copy(update={"item_id": request.item_id})
                yield reply.model_copy(update={"expected_digit": judge(shown[-1])})

        grade(name, answers, out, GradeConfig(paths={"prompts": file}), ask)
        totals = read_json(tmp_path / "s.totals.json")["totals"]
        return [*read_jsonl(out, Score)], {one["metric"]: one["value"] for one in totals}, shown

    return graded


def values(scores: list[Score], metric: str) -> list[float]:
    return [one.value for one in scores if one.metric == metric]


def test_the_grade_is_the_mean_digit_and_no_answer_has_grade_zero_without_a_judge(
    graded: Graded,
) -> None:
    scores, _, shown = graded("grades", lambda prompt: 7.25)
    assert values(scores, "grade") == [7.25, 7.25, 7.25, 0.0]
    assert len(shown) == 3


def test_where_words_are_expected_the_area_says_whether_grades_tell_what_is_correct(
    graded: Graded,
) -> None:
    scores, knows, _ = graded("grades", lambda prompt: 1.0 if "5" in prompt else 8.0)
    assert values(scores, "correct") == [1.0, 0.0, 1.0]
    assert knows["auroc"] == 1.0
    assert graded("grades", lambda prompt: 8.0 if "5" in prompt else 1.0)[1]["auroc"] == 0.0
    assert graded("grades", lambda prompt: 5.0)[1]["auroc"] == 0.5


@pytest.mark.parametrize(
    ("name", "question", "criteria"),
    [
        ("grades", True, True),
        ("grades-brief", True, False),
        ("grades-response", False, True),
        ("grades-response-brief", False, False),
    ],
)
def test_the_name_says_what_the_judge_sees(
    graded: Graded,
    name: str,
    question: bool,
    criteria: bool,
) -> None:
    _, _, (first, *_) = graded(name, lambda prompt: 5.0)
    assert "It is 2." in first
    assert ("What is 1 + 1?" in first) == question
    assert ("Judge the answer" in first) == criteria


def test_a_judge_that_answers_in_words_is_refused(
    graded: Graded,
) -> None:
    with pytest.raises(DataError, match="item 0: the judge's reply is no grade; name an engine"):
        graded("grades", lambda prompt: None)


def test_empty_answers_say_nothing_about_the_judge(
    graded: Graded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROMPTS[3], "expected", "well")
    scores, totals, _ = graded("grades", lambda prompt: 1.0 if "5" in prompt else 0.5)
    assert values(scores, "correct") == [1.0, 0.0, 1.0, 0.0]
    # The empty answer has grade 0, below all others, and would lift this to 0.5.
    assert totals["auroc"] == 0.0
