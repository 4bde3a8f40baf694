from typing import Any

import pytest

from response_tuning.artifacts import Message
from response_tuning.configs import DataConfig
from response_tuning.data.columns import RESPONSE_COLUMNS, Columns, choose, not_used, row_turns
from response_tuning.data.conversations import Turn, UnusableRow
from response_tuning.data.survey import survey
from response_tuning.errors import ConfigError, DataError

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]


def chosen(*rows: dict[str, Any], **settings: object) -> Columns:
    config = DataConfig.model_validate({"source": "data.jsonl", **settings})
    return choose(survey(rows), config, "data.jsonl")


def read(row: dict[str, Any], **settings: object) -> list[Turn]:
    return row_turns(row, chosen(row, **settings))


def reason(row: dict[str, Any], columns: Columns) -> str:
    with pytest.raises(UnusableRow) as raised:
        row_turns(row, columns)
    return str(raised.value)


@pytest.mark.parametrize("place", range(len(RESPONSE_COLUMNS)))
def test_the_usual_response_names_are_found_in_their_order(place: int) -> None:
    first = dict.fromkeys(reversed(RESPONSE_COLUMNS[place:]), "x")
    assert chosen(first).response == RESPONSE_COLUMNS[place]


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


# What some rows lack


def test_a_column_that_the_first_row_lacks_is_used() -> None:
    rows = [{"output": "r"}, {"instruction": "q", "input": "x", "output": "r"}]
    assert chosen(*rows) == Columns("output", "instruction", "input")
    assert chosen({"text": None}, {"response": "r"}) == Columns("response")
    assert chosen({"id": 1}, {"reply": "r"}, response_column="reply") == Columns("reply")


def test_a_context_that_is_text_in_some_row_is_used() -> None:
    used = chosen(
        {"question": "q", "answer": "r"}, {"question": "q", "answer": "r", "context": "x"}
    )
    assert row_turns({"question": "q", "answer": "r", "context": "x"}, used) == [
        Turn("r", "q\n\nx")
    ]
    assert reason({"question": "q", "answer": "r", "context": ["x"]}, used) == (
        "context is a list, not text"
    )


def test_input_and_context_are_both_used() -> None:
    row = {"instruction": "q", "input": "x", "context": "y", "output": "r"}
    assert read(row) == [Turn("r", "q\n\nx\n\ny")]


def test_an_instruction_may_have_another_name_in_other_rows() -> None:
    rows = [{"prompt": "p", "response": "r"}, {"question": "q", "response": "r"}]
    used = chosen(*rows)
    assert [row_turns(row, used) for row in rows] == [[Turn("r", "p")], [Turn("r", "q")]]
    assert not_used(survey(rows), used) == []
    both = {"prompt": "p", "question": "q", "response": "r"}
    assert not_used(survey([both]), chosen(both)) == ["question"]


def test_a_column_that_few_rows_have_is_not_the_response() -> None:
    rows = [{"response": "stray"}, *[{"output": "r"}] * 9]
    assert chosen(*rows) == Columns("output")
    assert chosen(*[{"response": "r"}] * 5, *[{"output": "r"}] * 9) == Columns("response")


# Conversations with something beside them


@pytest.mark.parametrize("name", ["messages", "conversations", "chat", "dialogue"])
def test_a_rendered_text_beside_a_conversation_is_not_the_response(name: str) -> None:
    row = {"text": "<|user|>q<|assistant|>r", name: CHAT}
    assert read(row) == [Turn("r", "q")]
    assert not_used(survey([row]), chosen(row)) == ["text"]


@pytest.mark.parametrize("name", ["system", "system_prompt", "system_message"])
def test_a_system_column_comes_before_the_conversation(name: str) -> None:
    system = Message(role="system", content="Be brief.")
    assert read({name: "Be brief.", "messages": CHAT}) == [Turn("r", "q", (system,))]
    assert read({name: "Be brief.", "prompt": "q", "response": "r"}) == [Turn("r", "q", (system,))]
    assert read({name: "", "messages": CHAT}) == [Turn("r", "q")]


def test_a_system_column_that_repeats_the_conversation_is_not_doubled() -> None:
    system = {"role": "system", "content": "Be brief."}
    (turn,) = read({"system": "Be brief.", "messages": [system, *CHAT]})
    assert [message.content for message in turn.earlier] == ["Be brief."]
    (turn,) = read({"system": "Be kind.", "messages": [system, *CHAT]})
    assert [message.content for message in turn.earlier] == ["Be kind.", "Be brief."]


@pytest.mark.parametrize("history", [[["a", "b"]], ["a", "b"]])
def test_a_history_is_context_and_never_learned(history: object) -> None:
    row = {"instruction": "q", "output": "r", "history": history, "system": "s"}
    (turn,) = read(row)
    assert turn[:2] == ("r", "q")
    earlier = [(message.role, message.content) for message in turn.earlier]
    assert earlier == [("system", "s"), ("user", "a"), ("assistant", "b")]


def test_a_history_of_messages_is_read_as_well() -> None:
    (turn,) = read({"instruction": "p", "output": "s", "history": CHAT})
    assert turn == Turn("s", "p", tuple(Message.model_validate(item) for item in CHAT))


@pytest.mark.parametrize("history", [[["a"]], [["a", 3]], [3], {"a": "b"}])
def test_a_history_that_cannot_be_read_drops_its_row(history: object) -> None:
    used = Columns("output", "instruction", history="history")
    row = {"instruction": "q", "output": "r", "history": history}
    assert "history" in reason(row, used) or "message" in reason(row, used)


@pytest.mark.parametrize(
    "text",
    [
        "### Human: q q### Assistant: r r",
        "Below is one.\n\n### Instruction:\nq\n\n### Response:\nr",
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\nr<|im_end|>",
        "[INST] q [/INST] r",
        "Human: q\n\nAssistant: r",
    ],
)
def test_conversations_that_are_written_out_are_refused_or_flagged(text: str) -> None:
    with pytest.raises(DataError, match="column 'text' holds whole conversations, each as one"):
        chosen({"text": text}, {"text": text}, {"text": "r"})
    used = chosen({"text": text}, {"text": "r"})
    flags = [row_turns({"text": response}, used)[0].rendered for response in (text, "r")]
    assert flags == ["looks like a whole conversation in one text", ""]


def test_an_answer_with_headings_is_no_written_out_conversation() -> None:
    text = "## Question\nq\n## Answer\nr\n### Response: s\nUser: t"
    assert chosen({"text": text}).response == "text"


@pytest.mark.parametrize("column", ["type", "user_role", "Role", "speaker-name"])
def test_speakers_are_found_under_other_names_of_the_column(column: str) -> None:
    rows = [{"text": "q", column: "human:"}, {"text": "r", column: "AI"}]
    odd = {"text": "s", column: "moderator"}
    for beside in ({}, {"question": None}, {"input": ""}):
        with pytest.raises(DataError, match=f"as column '{column}' names the speaker"):
            chosen(*(row | beside for row in (*rows, odd)))
    assert chosen(*(row | {"question": "q"} for row in rows)).response == "text"


def test_who_wrote_whole_answers_is_no_speaker() -> None:
    assert chosen({"text": "r", "type": "human"}, {"text": "s", "type": "essay"}).response == "text"
    assert (
        chosen({"text": "r", "source": "human"}, {"text": "s", "source": "ai"}).instruction is None
    )


@pytest.mark.parametrize(
    ("column", "user"),
    [
        ("role", "prompter"),
        ("role", "User"),
        ("from", "human"),
        ("speaker", "customer"),
        ("sender", "visitor"),
    ],
)
def test_rows_that_are_one_message_each_are_refused_with_the_column(column: str, user: str) -> None:
    rows = [{"text": "q", column: user}, {"text": "r", column: "assistant"}]
    with pytest.raises(DataError) as error:
        chosen(*rows)
    assert f"each row is one message, as column '{column}' names the speaker" in str(error.value)
    with pytest.raises(DataError, match="each row is one message"):
        chosen(*rows, response_column="text")
    with pytest.raises(DataError, match="each row is one message"):
        chosen(*({"content": row["text"], column: row[column]} for row in rows))


def test_a_tree_of_texts_without_roles_is_said_to_be_one() -> None:
    rows = [{"text": "q", "id": "1"}, {"text": "r", "id": "2", "parent_id": "1"}]
    assert not_used(survey(rows), chosen(*rows)) == ["parent_id"]


def test_an_author_or_a_role_beside_whole_answers_is_no_speaker() -> None:
    assert (
        chosen({"text": "r", "author": "Ada"}, {"text": "s", "author": "user"}).response == "text"
    )
    assert chosen({"text": "r", "role": "assistant"}).response == "text"
    assert chosen({"question": "q", "answer": "r", "author": "human"}).response == "answer"


def test_preference_data_are_refused_with_what_to_name() -> None:
    row = {"prompt": "q", "chosen": CHAT, "rejected": CHAT}
    with pytest.raises(DataError, match=r"preference data, .* --response-column chosen"):
        chosen(row)
    assert chosen(row, response_column="chosen").response == "chosen"


def test_an_error_names_some_of_many_columns() -> None:
    with pytest.raises(DataError, match="'c19' and 480 more; name it"):
        chosen({f"c{n}": n for n in range(500)})


# What is not used, and what is marked


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
    names = not_used(survey([row]), chosen(row))
    assert names == ["prompt", "tools", "images", "notes", "history", "weight"]


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
    messages = [
        CHAT[0],
        CHAT[1] | {"hidden": True, "note": "a"},
        CHAT[1] | {"hidden": 0, "weight": 1},
    ]
    row = {"messages": messages, "approved": False, "place": 7}
    assert not_used(survey([row]), chosen(row)) == ["approved", "messages[].hidden"]
