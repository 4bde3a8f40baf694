import json
from typing import Any

import pytest

from response_tuning.generate.chat_reply import ChatReply, Unusable, filter_named, read_reply
from response_tuning.generate.engine import NO_USAGE, Usage


def read(
    message: dict[str, Any], finish: str | None = "stop", limit: int = 16, **more: object
) -> ChatReply:
    choice = {"message": message, "finish_reason": finish}
    return read_reply(json.dumps({"choices": [choice], **more}).encode(), limit)


@pytest.mark.parametrize(
    ("finish", "meant"),
    [
        *((name, "stop") for name in ("stop", "eos", "eos_token", "end_turn", "stop_sequence")),
        *((name, "stop") for name in ("STOP", "Stop", " stop ", "end_of_text", "completed")),
        *((name, "length") for name in ("length", "max_tokens", "MAX_TOKENS", "max_length")),
        *((name, "length") for name in ("model_length", "max_output_tokens")),
        *((name, "filtered") for name in ("content_filter", "SAFETY", "refusal", "sensitive")),
        (None, "stop"),
        ("", "stop"),
    ],
)
def test_an_end_is_known_by_the_names_that_servers_give_it(finish: str | None, meant: str) -> None:
    found = read({"content": "a"}, finish)
    assert (found.response, found.finish_reason) == ("a", meant)
    assert bool(found.detail) == (meant == "filtered")


def test_an_end_by_an_unknown_name_is_said_and_is_none_of_those_known() -> None:
    found = read({"content": "a"}, "moonrise\nin \x1b[31mred" + "x" * 500)
    assert (found.response, found.finish_reason) == ("a", "other")
    assert found.detail.startswith("finish_reason 'moonrise in") and len(found.detail) < 250


def test_without_a_reason_an_answer_as_long_as_the_limit_was_cut() -> None:
    usage = {"completion_tokens": 16}
    assert read({"content": "a"}, None, usage=usage).finish_reason == "length"
    assert read({"content": "a"}, None, limit=17, usage=usage).finish_reason == "stop"


@pytest.mark.parametrize("finish", ["abort", "error", "insufficient_system_resource"])
def test_an_answer_that_a_server_broke_off_is_none(finish: str) -> None:
    with pytest.raises(Unusable, match=f"aborted: finish_reason '{finish}'"):
        read({"content": "a"}, finish)


@pytest.mark.parametrize(
    ("message", "finish", "detail"),
    [
        ({"content": None}, "stop", "no content"),
        ({}, "stop", "no content"),
        ({"content": []}, "stop", "no content"),
        ({"content": None}, "content_filter", "content_filter"),
        ({"content": "partly"}, "content_filter", "content_filter"),
        ({"content": None, "tool_calls": [{"id": "a"}]}, "tool_calls", "a tool call, but no"),
        ({"content": None, "tool_calls": [{"id": "a"}]}, "stop", "a tool call, but no"),
        ({"content": "", "function_call": {"name": "a"}}, "stop", "a tool call, but no"),
        ({"content": "I look.", "tool_calls": [{}]}, "tool_use", "a tool call, but no"),
        ({"content": [{"type": "image_url", "image_url": {}}]}, "stop", "no content"),
    ],
)
def test_what_is_no_answer_is_an_outcome_with_its_cause(
    message: dict[str, Any], finish: str, detail: str
) -> None:
    found = read(message, finish)
    assert found.finish_reason == "filtered" and found.detail.startswith(detail)
    content = message.get("content")
    assert found.response == (content if isinstance(content, str) else "")


@pytest.mark.parametrize(
    "content",
    [
        [{"type": "text", "text": "Sure"}, {"type": "text", "text": "."}],
        [{"type": "output_text", "text": "Sure."}],
        [{"text": "Sure."}],
        [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"text": "Sure."}],
        [{"type": "reasoning", "summary": [{"text": "hm"}]}, {"type": "text", "text": "Sure."}],
    ],
)
def test_content_in_parts_is_one_answer_without_the_thoughts_in_it(content: list[Any]) -> None:
    found = read({"content": content})
    assert (found.response, found.finish_reason) == ("Sure.", "stop")
    assert found.reasoning == ("hm" if len(content) == 2 and "text" not in content[0] else None)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_in_a_field_are_kept_apart(field: str) -> None:
    assert read({"content": "Sure.", field: "hm"})[:4] == ("Sure.", "stop", "", "hm")
    assert read({"content": None, field: "hm"}, "length")[:4] == ("", "length", "", "hm")
    assert read({"content": "Sure.", field: None}).reasoning is None
    assert read({"content": "Sure.", field: {"odd": 1}}).reasoning is None


def test_a_limit_that_was_spent_on_hidden_thoughts_leaves_no_answer() -> None:
    usage = {"completion_tokens": 16, "completion_tokens_details": {"reasoning_tokens": 16}}
    assert read({"content": ""}, "length", usage=usage).reasoning == ""
    assert read({"content": None}, "length").reasoning == ""
    assert read({"content": ""}, "length").reasoning is None
    assert read({"content": "a"}, "length", usage=usage).reasoning is None


def test_a_refusal_in_a_field_of_its_own_is_what_the_model_said() -> None:
    found = read({"content": None, "refusal": "I'm sorry, I can't."})
    assert (found.response, found.finish_reason) == ("I'm sorry, I can't.", "stop")
    assert read({"content": "Sure.", "refusal": None}).response == "Sure."
    assert read({"content": [{"type": "refusal", "refusal": "No."}]}).response == "No."


def test_of_several_choices_nobody_knows_which_is_the_answer() -> None:
    choices = [{"message": {"content": text}, "finish_reason": "stop"} for text in "ab"]
    with pytest.raises(Unusable, match="2 choices, but one was requested"):
        read_reply(json.dumps({"choices": choices}).encode(), 9)


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"completion_tokens": 7, "prompt_tokens": 5}, Usage(7, 5)),
        ({"completion_tokens": "many", "prompt_tokens": -5}, NO_USAGE),
        ({"completion_tokens": 10**18, "prompt_tokens": True}, NO_USAGE),
        ("none", NO_USAGE),
        ([], NO_USAGE),
    ],
)
def test_a_count_that_cannot_be_one_is_none_and_costs_no_answer(usage: Any, counted: Usage) -> None:
    found = read({"content": "a"}, usage=usage)
    assert (found.response, found.usage) == ("a", counted)


@pytest.mark.parametrize(
    ("code", "named"),
    [
        *((code, code) for code in ("content_filter", "ResponsibleAIPolicyViolation")),
        *((code, code) for code in ("data_inspection_failed", "content_policy_violation")),
        *((code, "") for code in ("context_length_exceeded", "unsupported_parameter", "", "400")),
        (None, ""),
        (400, ""),
    ],
)
def test_the_codes_of_filters_are_known(code: object, named: str) -> None:
    assert filter_named(code) == named
