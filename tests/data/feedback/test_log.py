from typing import Any

import pytest

from response_tuning.data.feedback.log import dialogues
from response_tuning.errors import DataError
from response_tuning.readers import Row


def rows(*fields: dict[str, Any]) -> list[Row]:
    return [Row(f"log.jsonl:{line}", one) for line, one in enumerate(fields, 1)]


def uttered(number: int, role: str, content: str, **labels: Any) -> dict[str, Any]:
    return {
        "UtteranceId": number,
        "TurnId": number // 2,
        "Role": role,
        "Content": content,
        **labels,
    }


def test_a_conversation_begins_at_each_utterance_0() -> None:
    log = rows(
        uttered(0, "User", "a"),
        uttered(1, "Assistant", "b"),
        uttered(0, "User", "c"),
        uttered(1, "Assistant", "d"),
        uttered(2, "User", "e"),
    )
    first, second = dialogues(log, "log")
    assert [one.content for one in first.utterances] == ["a", "b"]
    assert [one.role for one in second.utterances] == ["user", "assistant", "user"]
    assert (second.number, second.where, second.fault) == (1, "log.jsonl:3", "")


YES: list[object] = ["Y", True, 1, "Gratitude", ["Praise"]]
NO: list[object] = ["N", False, 0, "", None, [], "N/A", "none"]


@pytest.mark.parametrize(
    ("label", "holds"), [*((one, True) for one in YES), *((one, False) for one in NO)]
)
def test_a_label_is_yes_a_number_or_the_names_of_its_signs(label: object, holds: bool) -> None:
    (dialogue,) = dialogues(rows(uttered(0, "user", "a", SAT=label, DSAT="N")), "log")
    assert dialogue.utterances[0].satisfied is holds
    assert dialogue.utterances[0].dissatisfied is False


@pytest.mark.parametrize(
    ("flag", "opens"),
    [
        (flag, flag in ("NO", False, "new topic", "NEWTOPIC"))
        for flag in ("YES", True, "NO", False, "new topic", "NEWTOPIC", "SAME")
    ],
)
def test_the_flag_of_the_topic_is_found_by_how_its_name_begins(flag: object, opens: bool) -> None:
    row = uttered(0, "user", "a", **{"Preceeding topical relation": flag})
    (dialogue,) = dialogues(rows(row), "log")
    assert dialogue.utterances[0].opens_topic is opens


@pytest.mark.parametrize(
    ("log", "fault"),
    [
        ([uttered(0, "user", "a"), uttered(2, "assistant", "b")], "turn ids are not complete"),
        ([uttered(1, "user", "a"), uttered(2, "assistant", "b")], "turn ids are not complete"),
        ([uttered(0, "user", "a"), uttered(1, "user", "b")], "turns do not alternate"),
        ([uttered(0, "assistant", "a")], "turns do not alternate"),
        ([uttered(0, "user", " ")], "a turn without text"),
        ([uttered(0, "robot", "a")], "role 'robot' is not supported"),
    ],
)
def test_a_conversation_that_cannot_be_trusted_says_why(log: list[Any], fault: str) -> None:
    (dialogue,) = dialogues(rows(*log), "log")
    assert fault in dialogue.fault


def test_whole_conversations_are_read_in_any_usual_spelling() -> None:
    log = rows(
        {"conversation": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"conversation": [{"from": "human", "value": "c"}]},
        {"conversation": "no list"},
    )
    first, second, third = dialogues(log, "log")
    assert [one.role for one in first.utterances] == ["user", "assistant"]
    assert first.utterances[0].satisfied is None
    assert second.utterances[0].content == "c"
    assert "not a list of messages" in third.fault


def test_another_file_is_one_line_that_names_the_columns() -> None:
    with pytest.raises(DataError, match=r"^log: neither conversations .* found 'prompt'$"):
        list(dialogues(rows({"prompt": "a"}), "log"))
    with pytest.raises(DataError, match="has no rows"):
        list(dialogues([], "log"))


@pytest.mark.parametrize("number", ["x", None, True])
def test_an_id_that_is_no_number_names_its_line(number: object) -> None:
    log = rows(uttered(0, "user", "a"), {**uttered(1, "assistant", "b"), "UtteranceId": number})
    with pytest.raises(DataError, match=r"^log\.jsonl:2: UtteranceId is .*, not a number"):
        list(dialogues(log, "log"))


def test_a_row_that_cannot_be_read_is_not_passed_over() -> None:
    log = [*rows(uttered(0, "user", "a")), Row("log.jsonl:2", {}, "not JSON")]
    with pytest.raises(
        DataError, match=r"log\.jsonl:2: not JSON; a conversation would lose a turn"
    ):
        list(dialogues(log, "log"))
