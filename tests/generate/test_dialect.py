from typing import Any

import pytest

from response_tuning.artifacts import Message, Question, Request, Sampling
from response_tuning.generate.dialect import can_omit, fields, notes, refused_field

ASKED = Request(item_id="a", prompt=(Message(role="user", content="hi"),))
JUDGED = Question(item_id="a", prompt=ASKED.prompt, form={"type": "object"})


def sent(request: Request = ASKED, **sampling: Any) -> dict[str, Any]:
    return fields(request, Sampling(stop=("#",), **sampling))


@pytest.mark.parametrize(
    ("message", "param", "field"),
    [
        ("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.", "max_tokens", 0),
        ("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'.", None, "max_tokens"),
        ("Unsupported value: 'temperature' does not support 0.", "temperature", 0),
        ("`temperature` is not supported with this model", None, "temperature"),
        ("Unrecognized request argument supplied: seed", None, "seed"),
        ("{'loc': ['body', 'seed'], 'type': 'extra_forbidden'}", None, "seed"),
        ("property 'stop' is unsupported", None, "stop"),
        ("`temperature` and `top_p` cannot both be specified", "top_p", 0),
        ("top_p: Extra inputs are not permitted", None, "top_p"),
    ],
)
def test_the_field_is_known_that_a_server_does_not_know(
    message: str, param: str | None, field: str | int
) -> None:
    assert refused_field(sent(), param, message) == (field or param)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("This model's maximum context length is 4096 tokens", "messages"),
        ("max_tokens is too large: 99999", "max_tokens"),
        ("temperature must be between 0 and 2", "temperature"),
        ("no such model", None),
        ("Unsupported parameter: 'n'", "n"),
    ],
)
def test_another_error_is_about_no_field(message: str, param: str | None) -> None:
    assert refused_field(sent(), param, message) is None


@pytest.mark.parametrize(
    "message",
    [
        "This response_format type is unavailable now",
        "'response_format.type' must be 'json_object' or 'text'",
        "Failed to parse grammar",
        "json_schema is not supported",
    ],
)
def test_a_form_that_a_server_does_not_know_is_left_out(message: str) -> None:
    asked = sent(JUDGED)
    assert asked["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert refused_field(asked, None, message) == "response_format"
    assert refused_field(sent(), None, message) is None


def test_a_limit_has_another_name_and_the_rest_is_left_out() -> None:
    some = frozenset(("max_tokens", "temperature"))
    found = fields(ASKED, Sampling(max_new_tokens=7, stop=("#",)), some)
    assert found["max_completion_tokens"] == 7
    assert {*found} == {"messages", "max_completion_tokens", "top_p", "seed", "stop"}


@pytest.mark.parametrize(
    ("field", "sampling", "spared"),
    [
        ("max_tokens", {}, True),
        ("max_completion_tokens", {}, False),
        ("temperature", {}, True),
        ("temperature", {"temperature": 1}, True),
        ("temperature", {"temperature": 0.7}, False),
        ("top_p", {"temperature": 1, "top_p": 1}, True),
        ("top_p", {"temperature": 0, "top_p": 0.9}, True),
        ("top_p", {"temperature": 1, "top_p": 0.9}, False),
        ("seed", {"temperature": 1}, True),
        ("stop", {}, True),
    ],
)
def test_only_what_does_not_change_the_question_is_left_out(
    field: str, sampling: dict[str, Any], spared: bool
) -> None:
    assert can_omit(field, Sampling(**sampling)) == spared


def test_an_answer_says_what_could_not_be_asked() -> None:
    greedy, warm = Sampling(), Sampling(temperature=1)
    assert notes(frozenset(("seed", "stop", "top_p", "max_tokens")), greedy) == []
    assert "temperature" in notes(frozenset(("temperature",)), greedy)[0]
    assert notes(frozenset(("temperature",)), warm) == []
    assert "without a seed" in notes(frozenset(("seed",)), warm)[0]
