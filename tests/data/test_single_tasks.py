import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Audit, Dropped, Example
from response_tuning.data.single_tasks import Render, chess, gsm8k, mbpp, poetry, recipes

Prepare = Callable[..., tuple[Audit, list[Example], list[Dropped]]]
GAME = (
    '[Event "Rated"]\n[WhiteElo "1639"]\n[BlackElo "1403"]\n[ECO "D10"]\n\n1. d4 d5 2. c4 c6 1-0\n'
)


@pytest.mark.parametrize(
    ("render", "fields", "instruction", "response"),
    [
        (
            gsm8k,
            {"question": "2 + 3?", "answer": "2+3 = <<2+3=5>>5\n#### 5"},
            "2 + 3?",
            "2+3 = <<2+3=5>>5\n#### 5",
        ),
        (
            mbpp,
            {"task_id": 1, "text": "Write a function f.", "code": "def f():\r\n  return 1"},
            "Write a function f.",
            "def f():\r\n  return 1",
        ),
        (
            poetry,
            {"author": "A", "poem name": "The Night", "content": "Dark\r\nIs it."},
            "Write a poem called The Night",
            "Dark\r\nIs it.",
        ),
        (
            recipes,
            {
                "Title": "Toast",
                "Cleaned_Ingredients": "['2 slices bread', \"butter, as you like\"]",
                "Instructions": "Toast it.",
            },
            "Recipe for Toast",
            " - 2 slices bread\n - butter, as you like\n\nToast it.",
        ),
        (
            chess,
            {"text": GAME},
            '[WhiteElo "1639"]\n[BlackElo "1403"]\n',
            "1. d4 d5 2. c4 c6 1-0",
        ),
    ],
)
def test_a_row_is_rendered_as_the_published_code_does(
    render: Render, fields: Mapping[str, Any], instruction: str, response: str
) -> None:
    assert render(fields) == (instruction, response)


@pytest.mark.parametrize(
    ("render", "fields", "missing"),
    [
        (poetry, {"poem name": None, "content": "Dark"}, "poem name"),
        (recipes, {"Title": "T", "Cleaned_Ingredients": "no list", "Instructions": "I"}, "Cleaned"),
        (chess, {"text": "1. d4"}, "WhiteElo"),
    ],
)
def test_a_row_that_lacks_something_says_what(
    render: Render, fields: Mapping[str, Any], missing: str
) -> None:
    with pytest.raises(KeyError, match=missing):
        render(fields)


def test_rows_without_a_name_are_dropped_and_counted(
    prepare_source: Prepare, tmp_path: Path
) -> None:
    path = tmp_path / "poems.jsonl"
    rows = [{"poem name": "Night", "content": "Dark"}, {"poem name": None, "content": "None"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    audit, examples, dropped = prepare_source("poetry", path=path)
    assert [one.instruction for one in examples] == ["Write a poem called Night"]
    assert audit.rows == 2
    assert [one.reason for one in dropped] == ["no column 'poem name' with text"]


def test_the_first_1000_rows_of_gsm8k_are_used_in_order(
    public_data: Path, prepare_source: Prepare
) -> None:
    path = public_data / "gsm8k" / "train.jsonl"
    _, examples, dropped = prepare_source("gsm8k", path=path)
    first = [json.loads(line) for line in path.read_text().splitlines()[:1000]]
    assert [(one.instruction, one.response) for one in examples] == [
        (row["question"], row["answer"]) for row in first
    ]
    assert len(dropped) == 7473 - 1000


def test_other_rows_than_the_published_ones_are_told(
    tmp_path: Path, prepare_source: Prepare, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "poems.jsonl"

    def prepared(poems: int, **settings: Any) -> str:
        caplog.clear()
        rows = ({"poem name": f"Night {n}", "content": f"Dark {n}"} for n in range(poems))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        prepare_source("poetry", path=path, **settings)
        return caplog.text

    assert "poetry: 570 usable examples, where Hewitt et al. have 571" in prepared(570)
    assert "usable examples" not in prepared(571) + prepared(571, max_examples=8)
