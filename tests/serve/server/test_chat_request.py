from typing import Any

import pytest
from pydantic import ValidationError

from response_tuning.artifacts import Message, Sampling
from response_tuning.serve.server.chat_request import WITHOUT_CONTEXT, ChatRequest

TURNS = [{"role": "user", "content": "hi"}]


def parsed(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"model": "m", "messages": TURNS, **fields})


def test_messages_may_come_in_parts_and_from_a_developer() -> None:
    turns = [
        {"role": "developer", "content": "Be brief.", "name": "ops"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None},
    ]
    assert parsed(messages=turns).conversation() == [
        Message(role="system", content="Be brief."),
        Message(role="user", content="a\nb"),
        Message(role="assistant", content=""),
    ]


def test_what_a_client_leaves_out_is_greedy_up_to_the_context() -> None:
    assert parsed(seed=3).sampling(256) == Sampling(max_new_tokens=256, seed=3)
    assert parsed(seed=3).sampling(None).max_new_tokens == WITHOUT_CONTEXT


def test_sampling_and_both_names_of_the_limit_are_taken() -> None:
    given = parsed(temperature=0.7, top_p=0.9, seed=5, stop="a", max_tokens=9).sampling(256)
    assert given == Sampling(max_new_tokens=9, temperature=0.7, top_p=0.9, seed=5, stop=("a",))
    assert parsed(max_tokens=9, max_completion_tokens=7).sampling(256).max_new_tokens == 7
    assert parsed(stop=["a", "b"]).sampling(256).stop == ("a", "b")


def test_without_a_seed_each_answer_has_another_one() -> None:
    assert parsed().sampling(None).seed != parsed().sampling(None).seed


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1}, {"n": None}, {"user": "me", "metadata": {"a": 1}}, {"logprobs": False},
        {"presence_penalty": 0, "frequency_penalty": 0.0}, {"tools": [], "tool_choice": "auto"},
        {"top_k": -1, "min_p": 0, "repetition_penalty": 1.0}, {"response_format": {"type": "text"}},
        {"stream_options": {"include_usage": True}, "stream": True},
    ],
)  # fmt: skip
def test_fields_that_change_nothing_are_accepted(fields: dict[str, Any]) -> None:
    parsed(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2}, {"logprobs": True}, {"presence_penalty": 0.5}, {"frequency_penalty": -1},
        {"tools": [{"type": "function"}]}, {"response_format": {"type": "json_object"}},
        {"top_k": 40}, {"min_p": 0.05}, {"repetition_penalty": 1.1}, {"logit_bias": {"5": 1}},
        {"grammar": "root ::= x"}, {"temperature": -1}, {"top_p": 0}, {"max_tokens": 0},
        {"stop": [""]}, {"messages": []}, {"messages": [{"role": "tool", "content": "x"}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
    ],
)  # fmt: skip
def test_fields_that_would_change_the_answer_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        parsed(**fields)
