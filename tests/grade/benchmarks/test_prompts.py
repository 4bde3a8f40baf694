import json
from pathlib import Path

import pytest

from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.grade import open_benchmark


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


def test_nothing_but_the_measures_of_any_answer_is_scored(tmp_path: Path) -> None:
    from response_tuning.artifacts import (
        Completion,
        Message,
        Sampling,
        Score,
        read_jsonl,
        write_jsonl,
    )
    from response_tuning.grade import grade

    config = asked(tmp_path / "p.jsonl", {"prompt": "Why?"})
    said = Completion(
        item_id="0",
        prompt=(Message(role="user", content="Why?"),),
        response="Because.",
        finish_reason="stop",
        error=None,
        key="k",
        model="m",
        template="t",
        sampling=Sampling(),
    )
    write_jsonl(tmp_path / "answers.jsonl", [said])
    grade("prompts", tmp_path / "answers.jsonl", tmp_path / "scores.jsonl", config)
    scores = {score.metric: score.value for score in read_jsonl(tmp_path / "scores.jsonl", Score)}
    assert scores["stopped"] == 1
    assert {"hit_limit", "empty"} <= scores.keys()
