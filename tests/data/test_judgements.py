from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from response_tuning.artifacts import Audit, Dropped, Example
from response_tuning.configs import DataConfig
from response_tuning.errors import DataError

Prepare = Callable[..., tuple[Audit, list[Example], list[Dropped]]]
ROW = {"instruction": "Hello?", "response": "Good day.", "reference": "Hi.", "digit": 7}
BRIEF = {"form": "brief"}


def many(count: int) -> list[dict[str, Any]]:
    return [ROW | {"instruction": f"q{n}", "digit": n % 10} for n in range(count)]


def test_a_row_becomes_its_digit_behind_both_prompts(prepare_rows: Prepare) -> None:
    audit, examples, _ = prepare_rows([ROW], judging=BRIEF)
    shown = "Question: Hello?\nReference: Hi.\nAnswer: Good day.\nGrade:"
    hidden = "Question: Hello?\nAnswer: Good day.\nGrade:"
    assert examples == [
        Example(row=0, turn=0, instruction=shown, response="7"),
        Example(row=0, turn=1, instruction=hidden, response="7"),
    ]
    assert audit.examples == 2


def test_a_judge_of_the_response_alone_sees_the_instruction_only_with_the_reference(
    prepare_rows: Prepare,
) -> None:
    _, examples, _ = prepare_rows([ROW], judging=BRIEF | {"sees": "response"})
    assert "Hello?" in str(examples[0].instruction)
    assert examples[1].instruction == "Answer: Good day.\nGrade:"


def test_a_sample_keeps_both_prompts_of_a_row(prepare_rows: Prepare) -> None:
    audit, examples, _ = prepare_rows(many(30), judging=BRIEF, max_examples=12)
    assert audit.rows_kept == 12
    assert [example.turn for example in examples] == [0, 1] * 12
    for first, second in zip(examples[::2], examples[1::2], strict=True):
        assert first.row == second.row
        assert first.instruction == str(second.instruction).replace(
            "\nAnswer", "\nReference: Hi.\nAnswer"
        )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"digit": 10}, "the grade is no digit from 0 to 9"),
        ({"digit": "good"}, "the grade is no digit from 0 to 9"),
        ({"digit": None}, "the grade is no digit from 0 to 9"),
        ({"reference": " "}, "no reference"),
        ({"response": " "}, "empty response"),
        ({"instruction": None}, "not one instruction with one answer"),
    ],
)
def test_a_row_that_is_no_judged_answer_is_dropped_with_a_reason(
    prepare_rows: Prepare, change: dict[str, Any], reason: str
) -> None:
    _, examples, dropped = prepare_rows([ROW, ROW | change], judging=BRIEF)
    assert len(examples) == 2
    assert [one.reason for one in dropped] == [reason]


def test_shuffled_digits_are_the_same_digits_on_other_rows(prepare_rows: Prepare) -> None:
    _, plain, _ = prepare_rows(many(40), judging=BRIEF)
    _, shuffled, _ = prepare_rows(many(40), judging=BRIEF | {"shuffle": True})
    assert [one.instruction for one in plain] == [one.instruction for one in shuffled]
    before, after = ([one.response for one in some] for some in (plain, shuffled))
    assert sorted(before) == sorted(after)
    moved = sum(a != b for a, b in zip(before, after, strict=True)) / len(before)
    assert moved > 0.6  # 0.9 if no digit may stay; chance leaves a tenth in place
    assert after[::2] == after[1::2], "both prompts of a row ask for the same digit"


@pytest.mark.parametrize("column", ["digit", "reference"])
def test_a_missing_column_is_one_line_that_names_the_setting(
    prepare_rows: Prepare, column: str
) -> None:
    row = {key: value for key, value in ROW.items() if key != column}
    with pytest.raises(DataError, match=rf"no column '{column}'.*data\.judging\.{column}_column"):
        prepare_rows([row], judging=BRIEF)


def test_columns_can_have_other_names(prepare_rows: Prepare) -> None:
    row = {"prompt": "Hello?", "output": "Good day.", "gold": "Hi.", "grade": "3"}
    columns = {"digit_column": "grade", "reference_column": "gold"}
    _, examples, _ = prepare_rows([row], judging=BRIEF | columns)
    assert [example.response for example in examples] == ["3", "3"]


@pytest.mark.parametrize(
    "other",
    [{"preferences": {}}, {"curation": {"language": "en"}}, {"mixture": {"refusals": 3}}],
)
def test_steps_for_other_rows_are_refused(other: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="has no use for judged answers"):
        DataConfig.model_validate({"source": "miniature", "judging": {}} | other)
