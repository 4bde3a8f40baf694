import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Completion, Request, write_jsonl
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.grade import JudgedBenchmark, open_benchmark

Make = Callable[..., Completion]
ROWS: list[dict[str, Any]] = [
    {"instruction": "Name a fruit.", "earlier": [], "metadata": {"wishes": ["a fruit", "short"]}},
    {
        "instruction": "And now?",
        "earlier": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hi."}],
        "wishes": ["no greeting"],
    },
]


def opened(tmp_path: Path, rows: list[dict[str, Any]], **settings: Any) -> JudgedBenchmark:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    given = {"paths": {"wishes": path}, **settings}
    rule = open_benchmark("wishes", GradeConfig.model_validate(given))
    assert isinstance(rule, JudgedBenchmark)
    return rule


@pytest.fixture
def compared(tmp_path: Path, completion: Make) -> JudgedBenchmark:
    items = opened(tmp_path, ROWS).items()
    write_jsonl(tmp_path / "reference.jsonl", [completion(item, "Bread.") for item in items])
    reference = str(tmp_path / "reference.jsonl")
    return opened(tmp_path, ROWS, reference=reference, judge={"engine": "scripted"})


def test_items_are_requests_with_the_turns_before_them(tmp_path: Path) -> None:
    first, second = opened(tmp_path, ROWS).items()
    assert [message.content for message in first.prompt] == ["Name a fruit."]
    assert [message.content for message in second.prompt] == ["Hi.", "Hi.", "And now?"]


def test_the_judge_sees_the_wishes_of_the_item_and_no_other(
    compared: JudgedBenchmark, completion: Make
) -> None:
    first, second = compared.items()
    for item, own, foreign in (
        (first, "a fruit\nshort", "greeting"),
        (second, "no greeting", "a fruit"),
    ):
        questions = compared.questions(item, completion(item, "A pear."))
        assert len(questions) == 2
        for question in questions:
            text = question.prompt[0].content
            assert f">\n{own}\n</wishes-" in text
            assert foreign not in text


def test_answers_are_compared_in_both_orders(compared: JudgedBenchmark, completion: Make) -> None:
    def prefers_the_answer(requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            label = "A" if request.item_id.endswith("first") else "B"
            yield completion(request, f"Verdict: {label}")

    item = compared.items()[0]
    given = completion(item, "A pear.")
    replies = [*prefers_the_answer(compared.questions(item, given))]
    scores = {score.metric: score.value for score in compared.judged(item, given, replies)}
    assert scores["win_rate"] == scores["order_consistent"] == 1


@pytest.mark.parametrize("wishes", [None, [], "short", [1]])
def test_a_row_without_wishes_is_one_line_with_its_place(tmp_path: Path, wishes: object) -> None:
    rows = [ROWS[0], {"instruction": "Hi.", "wishes": wishes}]
    with pytest.raises(DataError, match=r"pairs\.jsonl:2: 'wishes' is .*remove the row"):
        opened(tmp_path, rows).items()


def test_a_file_and_a_reference_are_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"grade\.paths\.wishes=pairs\.jsonl"):
        open_benchmark("wishes").items()
    with pytest.raises(ConfigError, match=r"grade\.reference=NAME"):
        opened(tmp_path, ROWS, judge={"engine": "scripted"})
