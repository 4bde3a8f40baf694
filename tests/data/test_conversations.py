import pytest

from response_tuning.artifacts import Message
from response_tuning.data.conversations import Turn, UnusableRow, messages, text, turns


def chat(*said: str) -> list[Message]:
    roles = {"s": "system", "u": "user", "a": "assistant"}
    return [Message.model_validate({"role": roles[item[0]], "content": item[1:]}) for item in said]


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
        ([{"role": "user", "content": [1]}], "the content of a message is a list, not text"),
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
    assert list(turns(chat("sbe kind", "uq", "ar", "uq2", "ar2"))) == [
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
    *_, last = turns(chat(*before, "alast"))
    assert last == Turn("last", instruction, tuple(chat(*earlier)))


def test_turns_before_the_start_are_context_only() -> None:
    found = list(turns(chat("uq", "ar", "uq2", "ar2"), start=3))
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
