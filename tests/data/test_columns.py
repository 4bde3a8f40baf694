from typing import Any

import pytest

from response_tuning.artifacts import Message
from response_tuning.configs import DataConfig
from response_tuning.data.columns import RESPONSES, Columns, choose, row_turns
from response_tuning.data.conversations import Turn, UnusableRow
from response_tuning.errors import ConfigError, DataError

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]


def chosen(first: dict[str, Any], **settings: object) -> Columns:
    config = DataConfig.model_validate({"source": "data.jsonl", **settings})
    return choose(first, config, "data.jsonl")


def read(row: dict[str, Any], **settings: object) -> list[Turn]:
    return row_turns(row, chosen(row, **settings))


def reason(row: dict[str, Any], columns: Columns) -> str:
    with pytest.raises(UnusableRow) as raised:
        row_turns(row, columns)
    return str(raised.value)


@pytest.mark.parametrize("place", range(len(RESPONSES)))
def test_the_usual_response_names_are_found_in_their_order(place: int) -> None:
    first = dict.fromkeys(reversed(RESPONSES[place:]), "x")
    assert chosen(first).response == RESPONSES[place]


@pytest.mark.parametrize("name", ["instruction", "prompt", "question", "query"])
def test_the_usual_instruction_names_are_found(name: str) -> None:
    assert read({name: "q", "response": "r"}) == [Turn("r", "q")]


def test_columns_can_be_named() -> None:
    row = {"ticket": "q", "reply": "r", "response": "other", "instruction": "other"}
    assert read(row, response_column="reply", instruction_column="ticket") == [Turn("r", "q")]


def test_a_column_named_as_response_is_no_instruction() -> None:
    assert chosen({"prompt": "r", "input": "q"}, response_column="prompt") == Columns(
        "prompt", "input"
    )


def test_without_an_instruction_there_is_none() -> None:
    assert read({"text": "r", "id": 3}) == [Turn("r")]


@pytest.mark.parametrize("name", ["input", "context"])
def test_what_an_instruction_is_about_follows_it_after_an_empty_line(name: str) -> None:
    assert read({"instruction": "q", name: "x", "output": "r"}) == [Turn("r", "q\n\nx")]
    assert read({"instruction": "q", name: "", "output": "r"}) == [Turn("r", "q")]
    assert read({"instruction": "q", name: None, "output": "r"}) == [Turn("r", "q")]
    assert read({"instruction": "", name: "x", "output": "r"}) == [Turn("r", "x")]


def test_input_alone_is_the_instruction() -> None:
    assert read({"input": "q", "output": "r"}) == [Turn("r", "q")]
    assert read({"context": "x", "output": "r"}) == [Turn("r")]


def test_a_context_that_is_no_text_is_not_used() -> None:
    assert read({"question": "q", "context": ["x"], "answer": "r"}) == [Turn("r", "q")]


def test_an_empty_instruction_is_none() -> None:
    assert read({"instruction": "", "output": "r"}) == [Turn("r")]
    assert read({"instruction": None, "output": "r"}) == [Turn("r")]


def test_nothing_is_stripped() -> None:
    assert read({"prompt": " q\n", "response": "\n r "}) == [Turn("\n r ", " q\n")]


@pytest.mark.parametrize("name", ["messages", "conversations"])
def test_a_conversation_is_read_under_its_usual_names(name: str) -> None:
    assert read({name: CHAT}) == [Turn("r", "q")]
    assert read({name: ["q", "r"]}) == [Turn("r", "q")]


def test_a_conversation_can_be_in_a_named_column() -> None:
    assert read({"chat": CHAT}, response_column="chat") == [Turn("r", "q")]


def test_a_prompt_beside_a_conversation_is_not_repeated() -> None:
    assert read({"prompt": "q", "messages": CHAT}) == [Turn("r", "q")]
    assert chosen({"prompt": "q", "messages": None}) == Columns("messages")


def test_a_conversational_prompt_goes_on_in_its_completion() -> None:
    row = {
        "prompt": [*CHAT, {"role": "user", "content": "q2"}],
        "completion": [{"role": "assistant", "content": "r2"}],
    }
    earlier = (Message(role="user", content="q"), Message(role="assistant", content="r"))
    assert read(row) == [Turn("r2", "q2", earlier)]


def test_a_conversational_prompt_may_have_a_plain_completion() -> None:
    assert read({"prompt": CHAT[:1], "completion": "r"}) == [Turn("r", "q")]


def test_a_conversational_completion_may_have_a_plain_prompt_if_it_is_named() -> None:
    row = {"prompt": "q", "completion": CHAT[1:]}
    assert read(row, instruction_column="prompt") == [Turn("r", "q")]


def test_a_source_without_a_response_column_names_its_columns_and_the_flag() -> None:
    with pytest.raises(DataError) as error:
        chosen({"label": 1, "sentence": "x"})
    assert "'label', 'sentence'" in str(error.value)
    assert "--response-column NAME" in str(error.value)


@pytest.mark.parametrize("flag", ["response_column", "instruction_column"])
def test_a_named_column_that_is_not_there_is_refused_with_those_that_are(flag: str) -> None:
    with pytest.raises(DataError) as error:
        chosen({"response": "r", "title": "t"}, **{flag: "reply"})
    assert "no column 'reply'" in str(error.value)
    assert "'response', 'title'" in str(error.value)


def test_one_column_cannot_be_both() -> None:
    with pytest.raises(ConfigError, match="cannot be both"):
        chosen({"text": "x"}, response_column="text", instruction_column="text")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"response": 3}, "response is a number, not text"),
        ({"response": ["r"]}, "response is a list, not text"),
        ({"response": "r", "prompt": 3}, "prompt is a number, not text"),
        ({"response": "r", "input": {}}, "input is an object, not text"),
        ({"prompt": "q"}, "no column 'response'"),
    ],
)
def test_a_row_that_cannot_be_read_says_why(row: dict[str, Any], why: str) -> None:
    assert reason(row, Columns("response", "prompt", "input")) == why


@pytest.mark.parametrize("value", [[], CHAT[:1], ["q"]])
def test_a_conversation_without_an_answer_is_no_example(value: object) -> None:
    assert reason({"messages": value}, Columns("messages")) == "no assistant turn"


def test_text_in_a_column_of_conversations_is_no_response() -> None:
    why = reason({"messages": "[]"}, Columns("messages"))
    assert why == "messages is text, not a list of messages"


def test_a_missing_response_is_an_empty_one() -> None:
    assert read({"response": None}) == [Turn("")]
    assert read({"messages": None}) == [Turn("")]
