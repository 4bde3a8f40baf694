"""What the reply of a chat completions server says, in the dialects that servers speak."""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from response_tuning.artifacts import FinishReason
from response_tuning.generate.engine import UNSAID, Usage, one_line

_STOPPED = (
    "stop eos eos_token end_turn stop_sequence stop_token end_of_turn end_of_text endoftext end "
    "complete completed finished done"
)
_AT_THE_LIMIT = (
    "length max_tokens max_length max_new_tokens max_output_tokens max_completion_tokens "
    "model_length token_limit context_length model_context_window_exceeded incomplete"
)
_FILTERED = (
    "content_filter content_filtered content-filter filter filtered safety sensitive moderation "
    "blocked blocklist prohibited_content recitation spii refusal guardrail_intervened"
)
_ENDS: dict[str, FinishReason] = {
    **dict.fromkeys(_STOPPED.split(), "stop"),
    **dict.fromkeys(_AT_THE_LIMIT.split(), "length"),
    **dict.fromkeys(_FILTERED.split(), "filtered"),
}
"""Name of an end on a server, in lower case -> what it is here."""
_TOOLS = frozenset(("tool_calls", "tool_call", "tool_use", "function_call"))
_BROKEN_OFF = frozenset(
    [
        "abort",
        "aborted",
        "error",
        "cancelled",
        "canceled",
        "cancel",
        "timeout",
        "insufficient_system_resource",
    ]
)
"""Ends that are no answer: the same question may have one later."""
_FILTERS = [
    "content_filter",
    "content_policy",
    "responsibleai",
    "data_inspection",
    "moderation",
    "prohibited_content",
    "guardrail",
    "flagged",
    "invalid_prompt",
    "safety",
]
"""What the code of an error holds where a filter acted: Azure's, OpenAI's and others'."""
_MOST_TOKENS = 10**8
_READ_ONCE = frozenset(("choices", "message", "role", "content", "finish_reason", "error"))
"""Keys whose second value nobody can tell from the first."""


class _Part(BaseModel):
    model_config = ConfigDict(defer_build=True)


class _Message(_Part):
    role: Any = None
    content: str | list[dict[str, Any]] | None = None
    refusal: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    thinking: Any = None
    tool_calls: Any = None
    function_call: Any = None


class _Choice(_Part):
    message: _Message
    error: Any = None
    finish_reason: str | None = None


class _Reply(_Part):
    """What is needed of a reply; anything else about it is the server's business."""

    choices: list[_Choice] = Field(min_length=1)
    error: Any = None
    usage: Any = None
    model: Any = None


class _Said(NamedTuple):
    """What is in a message."""

    text: str | None
    """None: there is none, which is not the same as an empty one."""
    thoughts: str | None


class Unusable(Exception):
    """A reply that is none; asked again, the server may give one."""


class ChatReply(NamedTuple):
    """One answer, as a record has it."""

    response: str
    finish_reason: FinishReason
    detail: str
    reasoning: str | None
    usage: Usage
    model: str
    """What the server calls the model; empty if it does not say."""


def read_reply(body: bytes, max_tokens: int, mask: Callable[[str], str] = str) -> ChatReply:
    """Read a reply to a request for at most ``max_tokens`` tokens.

    ``mask`` takes secrets out of its strings, whose escapes are no longer there then.

    Raises:
        pydantic.ValidationError: it is no chat completion.
        Unusable: the server broke off, or this is not plainly one answer to the request.
    """
    _Reply.model_validate_json(body)  # stricter than Python's reader: UTF-8, whole characters
    try:
        content = _masked(json.loads(body, object_pairs_hook=_read_once), mask)
    except (ValueError, RecursionError) as error:  # a huge integer, or nesting without end
        raise Unusable("not JSON that can be read") from error
    reply = _Reply.model_validate(content)
    choice = _only_choice(reply)
    said = _said(choice.message)
    usage = _usage(reply.usage)
    end = (choice.finish_reason or "").strip().lower()
    if end in _BROKEN_OFF:
        raise Unusable(f"the server broke off: finish_reason '{end}'")
    if not end:
        full = usage.tokens is not None and usage.tokens >= max_tokens
        end = "length" if full else "stop"
    finish, detail = _finish(choice.message, said, end)
    thoughts = said.thoughts
    if not said.text and thoughts is None and _hides_thoughts(said, finish, reply.usage):
        thoughts = ""
    model = reply.model if isinstance(reply.model, str) else ""
    return ChatReply(said.text or "", finish, detail, thoughts, usage, one_line(model))


def _read_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        for name in _READ_ONCE & found.keys():
            if names.count(name) > 1:
                raise Unusable(f"'{name}' is there twice")
    return found


def _masked(content: Any, mask: Callable[[str], str]) -> Any:  # noqa: ANN401 - what JSON can hold
    if isinstance(content, str):
        return mask(content)
    if isinstance(content, list):
        return [_masked(one, mask) for one in content]
    if isinstance(content, dict):
        return {name: _masked(one, mask) for name, one in content.items()}
    return content


def _only_choice(reply: _Reply) -> _Choice:
    """Return the one answer of an assistant; several, an error or another speaker are none."""
    choice = reply.choices[0]
    if error := reply.error or choice.error:
        said = error.get("message", error) if isinstance(error, dict) else error
        raise Unusable(f"the server reports an error: {one_line(str(said))}")
    if len(reply.choices) > 1:
        raise Unusable(f"{len(reply.choices)} choices, and one was asked for")
    role = choice.message.role
    if role and role != "assistant":
        raise Unusable(f"a message of {one_line(repr(role))}, not of the assistant")
    return choice


def filter_named(code: object) -> str:
    """Return the code of an error where it says that a filter acted; empty otherwise."""
    name = str(code or "")
    plain = name.lower().replace("-", "_").replace(" ", "")
    return one_line(name) if any(sign in plain for sign in _FILTERS) else ""


def _finish(message: _Message, said: _Said, end: str) -> tuple[FinishReason, str]:
    """Return how an answer ended, and the server's word for it where that says more."""
    if end in _TOOLS or (not said.text and (message.tool_calls or message.function_call)):
        return "filtered", "a tool call, and no tool was offered"
    finish = _ENDS.get(end)
    if finish == "filtered":
        return "filtered", one_line(end)
    if said.text is None and said.thoughts is None and finish != "length":
        return "filtered", "no content"
    return (finish, "") if finish else ("other", f"finish_reason '{one_line(end)}'")


def _said(message: _Message) -> _Said:
    texts: list[str] = []
    thoughts = [
        one
        for one in (message.reasoning_content, message.reasoning, message.thinking)
        if isinstance(one, str) and one
    ][:1]  # vLLM says the same in two fields
    refusals = [message.refusal] if isinstance(message.refusal, str) else []
    if isinstance(message.content, str):
        texts.append(message.content)
    for part in message.content if isinstance(message.content, list) else ():
        kind = str(part.get("type", "text"))
        found = {"refusal": refusals, "text": texts, "output_text": texts}.get(kind, thoughts)
        found.extend(_texts(part))
    text = "".join(texts) if texts else None
    if not text and any(refusals):
        text = "".join(refusals)  # the model's own words, in a field of their own
    return _Said(text, "".join(thoughts) if thoughts else None)


def _texts(part: Any) -> list[str]:  # noqa: ANN401 - whatever JSON can hold
    """Return the texts in a part of a message: {"text": …}, {"thinking": [{"text": …}]}, …."""
    if isinstance(part, str):
        return [part]
    if isinstance(part, list):
        return [text for one in part for text in _texts(one)]
    if not isinstance(part, dict):
        return []
    names = ("text", "refusal", "thinking", "reasoning", "content", "summary")
    return next((_texts(part[name]) for name in names if part.get(name)), [])


def _usage(said: Any) -> Usage:  # noqa: ANN401 - whatever JSON can hold
    if not isinstance(said, dict):
        return UNSAID
    return Usage(_count(said.get("completion_tokens")), _count(said.get("prompt_tokens")))


def _count(said: object) -> int | None:
    """Return a number of tokens; None for what cannot be one."""
    if isinstance(said, bool) or not isinstance(said, int):
        return None
    return said if 0 <= said <= _MOST_TOKENS else None


def _hides_thoughts(said: _Said, finish: FinishReason, usage: Any) -> bool:  # noqa: ANN401
    """Whether all that the limit had room for were thoughts that the server does not show."""
    if finish != "length":
        return False
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    hidden = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return said.text is None or bool(_count(hidden))
