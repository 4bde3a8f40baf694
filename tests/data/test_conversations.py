import pytest

from response_tuning.artifacts import Message
from response_tuning.data.conversations import (
    SourceMessage,
    Turn,
    UnusableRow,
    conversation,
    messages,
    text,
    turns,
)


def chat(*turns: str) -> list[Message]:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [Message.model_validate({"role": roles[item[0]], "content": item[1:]}) for item in turns]


def spoken(*turns: str) -> list[SourceMessage]:
    return [SourceMessage(message.role, message.content) for message in chat(*turns)]


@pytest.mark.parametrize(
    "value",
    [
        [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}],
        [{"from": "human", "value": "q"}, {"from": "gpt", "value": "r"}],
        [{"from": "user", "value": "q"}, {"from": "assistant", "value": "r"}],
        ["q", "r"],
    ],
    ids=["chat", "sharegpt", "sharegpt-with-chat-roles", "lima"],
)
def test_every_spelling_of_a_conversation_reads_the_same(value: object) -> None:
    assert messages(value, "messages") == chat("uq", "ar")


def test_a_system_message_is_read_in_both_spellings() -> None:
    for value in ([{"role": "system", "content": "x"}], [{"from": "system", "value": "x"}]):
        assert messages(value, "messages") == chat("sx")


def test_null_keys_of_a_table_do_not_hide_the_spelling_that_is_used() -> None:
    value = [{"role": None, "content": None, "from": "gpt", "value": "r"}]
    assert messages(value, "messages") == chat("ar")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([{"role": "tool", "content": "x"}], "role 'tool' is not supported"),
        ([{"from": "function", "value": "x"}], "role 'function' is not supported"),
        ([{"content": "x"}], "role None is not supported"),
        ([{"role": ["user"], "content": "x"}], "role ['user'] is not supported"),
        (
            [{"role": "user", "content": [1]}],
            "the content of a message has a part that is not text",
        ),
        (["x", 3], "a message is text, not an object"),
        ([3], "a message is a number, not an object"),
        ("x", "messages is text, not a list of messages"),
        ({"role": "user"}, "messages is an object, not a list of messages"),
    ],
)
def test_what_is_no_conversation_says_why(value: object, reason: str) -> None:
    with pytest.raises(UnusableRow) as raised:
        messages(value, "messages")
    assert str(raised.value) == reason


def test_each_assistant_turn_has_its_instruction_and_all_before_it() -> None:
    assert list(turns(spoken("sbe kind", "uq", "ar", "uq2", "ar2"))) == [
        Turn("r", "q", tuple(chat("sbe kind"))),
        Turn("r2", "q2", tuple(chat("sbe kind", "uq", "ar"))),
    ]


@pytest.mark.parametrize(
    ("before", "instruction", "earlier"),
    [
        ([], None, []),
        (["sx"], None, ["sx"]),
        (["uq", "ar"], None, ["uq", "ar"]),
        (["uq", "sx"], None, ["uq", "sx"]),
        (["uq", "up"], "p", ["uq"]),
        (["u"], None, []),
    ],
    ids=["nothing", "system", "assistant", "user-then-system", "two-users", "empty-user"],
)
def test_the_instruction_is_the_users_message_directly_before(
    before: list[str], instruction: str | None, earlier: list[str]
) -> None:
    *_, last = turns(spoken(*before, "alast"))
    assert last == Turn("last", instruction, tuple(chat(*earlier)))


def test_turns_before_the_start_are_context_only() -> None:
    found = list(turns(spoken("uq", "ar", "uq2", "ar2"), start=3))
    assert found == [Turn("r2", "q2", tuple(chat("uq", "ar")))]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, "a boolean"),
        (3, "a number"),
        (0.5, "a number"),
        ([], "a list"),
        ({}, "an object"),
        (b"x", "of type bytes"),
    ],
)
def test_what_is_no_text_is_named(value: object, kind: str) -> None:
    with pytest.raises(UnusableRow, match=f"^response is {kind}, not text$"):
        text(value, "response")


def test_text_is_kept_as_it_stands() -> None:
    assert text(" \n x\t", "response") == " \n x\t"
    assert text(None, "response") == ""


ROLE_SPELLINGS = {
    "system": ["system", "developer", "System"],
    "user": ["user", "human", "prompter", "User", "HUMAN"],
    "assistant": ["assistant", "gpt", "chatgpt", "model", "bot", "Assistant"],
}


@pytest.mark.parametrize(
    ("named", "role"), [(named, role) for role, all_ in ROLE_SPELLINGS.items() for named in all_]
)
def test_the_roles_of_other_tools_are_ours(named: str, role: str) -> None:
    for value in ([{"role": named, "content": "x"}], [{"from": named, "value": "x"}]):
        assert messages(value, "messages") == [
            Message.model_validate({"role": role, "content": "x"})
        ]


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "a b"}],
        [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}],
        ["a b"],
        [{"text": "a b"}],
        [{"type": "output_text", "text": "a b"}],
        [{"type": "refusal", "refusal": "a b"}],
        [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a b"}],
        {"type": "text", "text": "a b"},
    ],
)
def test_content_in_parts_is_their_text(content: object) -> None:
    value = [{"role": "assistant", "content": content}, {"role": "model", "parts": content}]
    assert messages(value, "messages") == chat("aa b", "aa b")


def read(*value: object) -> list[Turn]:
    return list(turns(conversation(list(value), "messages")))


def raw(role: str, content: object, **more: object) -> dict[str, object]:
    return {"role": role, "content": content, **more}


IMAGE = [{"type": "text", "text": "q"}, {"type": "image_url", "image_url": {"url": "x"}}]


def test_only_the_turns_after_an_image_are_lost() -> None:
    first, second, third = read(
        raw("user", "q"),
        raw("assistant", "r"),
        raw("user", IMAGE),
        raw("assistant", "r2"),
        raw("user", "q3"),
        raw("assistant", "r3"),
    )
    assert first == Turn("r", "q")
    why = "the content of a message has a part that is not text"
    assert second.unfit == third.unfit == f"after a message that cannot be used: {why}"


def test_only_the_turns_after_an_unknown_role_are_lost() -> None:
    first, second = read(raw("assistant", "r"), raw("critic", "x"), raw("assistant", "r2"))
    assert first == Turn("r")
    assert second.unfit.endswith("role 'critic' is not supported")


@pytest.mark.parametrize(
    "call",
    [
        raw("assistant", None, tool_calls=[{"id": "c"}]),
        raw("assistant", "", function_call={"name": "f"}),
        raw("assistant", [{"type": "tool_use", "name": "f"}]),
        {"from": "function_call", "value": "{}"},
        raw("tool_call", "{}"),
    ],
)
@pytest.mark.parametrize(
    "result",
    [
        raw("tool", "3"),
        {"from": "observation", "value": "3"},
        raw("function", "3"),
        raw("ipython", "3"),
        raw("user", [{"type": "tool_result", "content": "3"}]),
    ],
)
def test_the_answer_after_a_tool_is_a_response_to_what_was_asked(
    call: dict[str, object], result: dict[str, object]
) -> None:
    *calls, answer = read(raw("user", "q"), call, result, raw("assistant", "r"))
    assert answer == Turn("r", "q", left_out="tool turns left out of its context")
    assert all(turn.unfit == "a tool call, which is no answer" for turn in calls)


def test_what_is_said_with_a_tool_call_is_context() -> None:
    call = raw("assistant", "I look.", tool_calls=[{"id": "c"}])
    first, second = read(raw("user", "q"), call, raw("tool", "3"), raw("assistant", "r"))
    assert first.unfit == "a tool call, which is no answer"
    assert second.earlier == tuple(chat("uq", "aI look."))


def test_an_empty_list_of_tool_calls_is_none() -> None:
    assert read(raw("assistant", "r", tool_calls=[], function_call=None)) == [Turn("r")]


@pytest.mark.parametrize(
    "mark",
    [
        {"weight": 0},
        {"weight": 0.0},
        {"train": False},
        {"training": False},
        {"loss": False},
        {"loss_mask": 0},
        {"masked": True},
        {"train": "false"},
    ],
)
def test_a_turn_that_is_not_to_be_learned_stays_context(mark: dict[str, object]) -> None:
    first, second = read(raw("assistant", "a", **mark), raw("user", "q"), raw("assistant", "r"))
    assert first.response == "a"
    assert first.unfit == f"marked as not to be learned ({next(iter(mark))})"
    assert second == Turn("r", "q", tuple(chat("aa")))
