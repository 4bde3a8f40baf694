from typing import Any

import pytest

from response_tuning.configs import DataConfig
from response_tuning.data.columns import Columns, choose, not_used, row_turns
from response_tuning.data.conversations import Turn
from response_tuning.data.survey import survey
from response_tuning.errors import DataError

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]


def chosen(*rows: dict[str, Any], **settings: object) -> Columns:
    config = DataConfig.model_validate({"source": "data.jsonl", **settings})
    return choose(survey(rows), config, "data.jsonl")


def read(row: dict[str, Any], **settings: object) -> list[Turn]:
    return row_turns(row, chosen(row, **settings))


def test_columns_that_say_something_and_are_not_used_are_named() -> None:
    row = {
        "prompt": "q",
        "messages": CHAT,
        "tools": "[]",
        "images": ["a.png"],
        "notes": "two words",
        "history": "of the row",
        "weight": 0.5,
        "id": "a b",
        "message_id": "a b",
        "source": "a b",
        "score": 3,
        "name": "word",
        "empty": "",
    }
    found = not_used(survey([row]), chosen(row))
    assert found == ["prompt", "tools", "images", "notes", "history", "weight"]


def test_what_the_papers_datasets_hold_is_used_or_known() -> None:
    alpaca = {"instruction": "q q", "input": "x x", "output": "r r"}
    dolly = {"instruction": "q q", "context": "x x", "response": "r r", "category": "open_qa"}
    lima = {"conversations": ["q q", "r r"], "source": "stackexchange"}
    own = {"row": 0, "turn": 0, "response": "r r", "instruction": None, "earlier": CHAT}
    for row in (alpaca, dolly, lima, own):
        assert not_used(survey([row]), chosen(row)) == []


@pytest.mark.parametrize(
    ("name", "no", "yes"),
    [
        ("weight", 0, 1),
        ("weight", "0", "1"),
        ("train", False, True),
        ("training", "false", "true"),
        ("loss", False, True),
        ("masked", True, False),
    ],
)
def test_a_row_can_be_marked_as_not_to_be_learned(name: str, no: object, yes: object) -> None:
    used = chosen({"response": "r"}, {"response": "r", name: no}, {"response": "r", name: yes})
    assert used.marks == (name,)
    (turn,) = row_turns({"response": "r", name: no}, used)
    assert turn.unfit == f"marked as not to be learned ({name})"
    assert row_turns({"response": "r", name: yes}, used) == [Turn("r")]
    assert row_turns({"response": "r", name: None}, used) == [Turn("r")]
    (turn,) = row_turns({"messages": CHAT, name: no}, used._replace(response="messages"))
    assert turn.unfit


def test_a_weight_that_is_a_measure_is_no_mark() -> None:
    rows = [{"response": "r", "weight": 71.5}, {"response": "s", "weight": 72.5}]
    assert chosen(*rows).marks == ()
    assert not_used(survey(rows), chosen(*rows)) == ["weight"]


@pytest.mark.parametrize("odd", [0.5, -1, 2, float("nan"), "some", [], {"a": 1}])
def test_one_odd_mark_leaves_out_its_row_alone(odd: object) -> None:
    rows = [{"response": "r", "weight": value} for value in (1, 0, odd)]
    used = chosen(*rows)
    assert [row_turns(row, used)[0].unfit for row in rows] == [
        "",
        "marked as not to be learned (weight)",
        "weight is neither 0 nor 1",
    ]


@pytest.mark.parametrize("column", ["loss_mask", "weights", "Mask"])
def test_marks_in_a_list_are_refused_with_the_column(column: str) -> None:
    with pytest.raises(DataError, match=f"column '{column}' holds lists, which are not read"):
        chosen({"messages": CHAT, column: [0, 1]}, {"messages": CHAT, column: 1})


@pytest.mark.parametrize(
    ("name", "no"),
    [
        ("keep", False),
        ("Use", 0),
        ("Exclude", True),
        ("deleted", "true"),
        ("is_correct", False),
        ("WEIGHT", "off"),
    ],
)
def test_a_mark_of_a_row_is_heard_under_other_names_and_in_any_case(name: str, no: object) -> None:
    row = {"response": "r", name: no}
    assert read(row)[0].unfit == f"marked as not to be learned ({name})"


def test_the_metadata_of_a_row_can_mark_it() -> None:
    row = {"response": "r", "metadata": {"weight": 0}}
    assert read(row)[0].unfit == "marked as not to be learned (weight)"
    assert read({"response": "r", "metadata": {"loss": 0.4, "use": "chat"}}) == [Turn("r")]


def test_unknown_flags_of_rows_and_messages_are_not_used_and_named() -> None:
    said = [CHAT[0], CHAT[1] | {"hidden": True, "note": "a"}, CHAT[1] | {"hidden": 0, "weight": 1}]
    row = {"messages": said, "approved": False, "place": 7}
    assert not_used(survey([row]), chosen(row)) == ["approved", "messages[].hidden"]
