import json
from pathlib import Path

import pytest

from response_tuning.artifacts import (
    Completion,
    FinishReason,
    Message,
    Sampling,
    Score,
    read_jsonl,
    write_jsonl,
)
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.grade import grade, open_benchmark
from response_tuning.grade.benchmarks.prompts import contains

Scores = dict[str, float]


def asked(path: Path, *rows: object) -> GradeConfig:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return GradeConfig(paths={"prompts": path})


def test_a_row_is_a_prompt_with_its_id_or_its_number(tmp_path: Path) -> None:
    config = asked(tmp_path / "p.jsonl", {"id": "sky", "prompt": "Why?"}, {"question": "How?"})
    items = open_benchmark("prompts", config).items()
    assert [(item.item_id, item.prompt[0].content) for item in items] == [
        ("sky", "Why?"),
        ("1", "How?"),
    ]


def test_lines_of_a_text_file_are_prompts(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("Why?\nHow?")
    config = GradeConfig(paths={"prompts": path}, limit=1)
    (item,) = open_benchmark("prompts", config).items()
    assert item.prompt[0].content == "Why?"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "a", "id": 1}, {"prompt": "b", "id": 1}], ":2: id '1' is not unique"),
        ([{"prompt": "a"}, {"prompt": " "}], ":2: empty prompt; remove the row"),
        ([{"text": "a"}], ":1: no column 'prompt or instruction or question' among 'text'"),
        ([{"prompt": 7}], ":1: expected text in 'prompt', found 7"),
        (
            [{"prompt": "a", "expected": ["b", " "]}],
            ":1: expected a text, or a list of texts, in 'expected', found",
        ),
        (
            [{"prompt": "a", "expected": []}],
            ":1: expected a text, or a list of texts, in 'expected', found",
        ),
    ],
)
def test_a_row_that_is_no_prompt_is_one_line(
    rows: list[object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "p.jsonl"
    with pytest.raises(DataError) as error:
        open_benchmark("prompts", asked(path, *rows)).items()
    assert str(error.value).startswith(f"{path}{message}")


def test_without_a_file_the_message_names_the_setting() -> None:
    with pytest.raises(ConfigError, match=r"--set grade\.paths\.prompts=prompts\.jsonl"):
        open_benchmark("prompts", GradeConfig()).items()


def scored(folder: Path, config: GradeConfig, *said: tuple[str, FinishReason]) -> list[Scores]:
    """The scores of the answers to the prompts 0, 1, ..., each with its finish reason."""
    answers = [
        Completion(
            item_id=str(number),
            prompt=(Message(role="user", content="Why?"),),
            response=response,
            finish_reason=reason,
            error=None,
            key="k",
            model="m",
            template="t",
            sampling=Sampling(),
        )
        for number, (response, reason) in enumerate(said)
    ]
    write_jsonl(folder / "answers.jsonl", answers)
    grade("prompts", folder / "answers.jsonl", folder / "scores.jsonl", config)
    found: list[Scores] = [{} for _ in said]
    for score in read_jsonl(folder / "scores.jsonl", Score):
        found[int(score.item_id)][score.metric] = score.value
    return found


def test_without_expected_words_nothing_but_the_measures_of_any_answer_is_scored(
    tmp_path: Path,
) -> None:
    config = asked(tmp_path / "p.jsonl", {"prompt": "Why?"})
    (scores,) = scored(tmp_path, config, ("Because.", "stop"))
    assert scores["stopped"] == 1
    assert {"hit_limit", "empty"} <= scores.keys()
    assert not {"correct", "strict"} & scores.keys()


def test_an_answer_with_an_expected_word_is_correct_and_strict_if_it_ends(tmp_path: Path) -> None:
    rows = [{"prompt": "Why?", "expected": ["two minutes", "2"]}] * 4
    config = asked(tmp_path / "p.jsonl", *rows)
    answers = scored(
        tmp_path, config,
        ("Two\nMinutes, please.", "stop"), ("2", "length"), ("22", "stop"), ("Soon.", "stop"),
    )  # fmt: skip
    assert [(one["correct"], one["strict"]) for one in answers] == [(1, 1), (1, 0), (0, 0), (0, 0)]


@pytest.mark.parametrize(
    ("text", "words", "is_there"),
    [
        ("Mint is a herb.", "mint", True),
        ("Peppermint is a herb.", "mint", False),
        ("Mints.", "mint", False),
        ("Stra\u00dfe", "STRASSE", True),
        ("It has C++ in it", "c++", True),
        (
            "\u5317\u4eac\u662f\u9996\u90fd",
            "\u5317\u4eac",
            True,
        ),  # "Beijing is the capital", no spaces
        ("It is (12.5) %", "12.5", True),
    ],
)
def test_words_are_whole_in_any_case(text: str, words: str, is_there: bool) -> None:
    assert contains(text, words) is is_there


def test_a_table_may_leave_expected_words_empty(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("prompt,expected\nWhy?,because\nWhy?,\n")
    config = GradeConfig(paths={"prompts": path})
    first, second = scored(tmp_path, config, ("Because.", "stop"), ("So.", "stop"))
    assert first["correct"] == 1
    assert "correct" not in second
