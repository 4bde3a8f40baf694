"""Read the reply of a chat completions server, in the dialects that servers speak."""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from response_tuning.artifacts import FinishReason
from response_tuning.generate.engine import NO_USAGE, Usage, one_line

_STOP_WORDS = (
    "stop eos eos_token end_turn stop_sequence stop_token end_of_turn end_of_text endoftext end "
    "complete completed finished done"
)
_LENGTH_WORDS = (
    "length max_tokens max_length max_new_tokens max_output_tokens max_completion_tokens "
    "model_length token_limit context_length model_context_window_exceeded incomplete"
)
_FILTER_WORDS = (
    "content_filter content_filtered content-filter filter filtered safety sensitive moderation "
    "blocked blocklist prohibited_content recitation spii refusal guardrail_intervened"
)
FINISH_REASONS: dict[str, FinishReason] = {
    **dict.fromkeys(_STOP_WORDS.split(), "stop"),
    **dict.fromkeys(_LENGTH_WORDS.split(), "length"),
    **dict.fromkeys(_FILTER_WORDS.split(), "filtered"),
}
"""A server's finish reason, in lower case -> ours."""
_TOOL_WORDS = frozenset(("tool_calls", "tool_call", "tool_use", "function_call"))
_ABORT_WORDS = frozenset(
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
"""Finish reasons of replies that are no answer; a retry may get one."""
_FILTER_CODES = [
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
"""Parts of the error codes of content filters: Azure's, OpenAI's and others'."""
_MAX_TOKENS = 10**8
_UNIQUE_KEYS = frozenset(("choices", "message", "role", "content", "finish_reason", "error"))
"""Keys that must not occur twice: which value counts would be a guess."""


class _Lenient(BaseModel):
    model_config = ConfigDict(defer_build=True)


class _Message(_Lenient):
    role: Any = None
    content: str | list[dict[str, Any]] | None = None
    refusal: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    thinking: Any = None
    tool_calls: Any = None
    function_call: Any = None


class _Choice(_Lenient):
    message: _Message
    error: Any = None
    finish_reason: str | None = None


class _ChatCompletion(_Lenient):
    """The fields of a reply that are used; all others are ignored."""

    choices: list[_Choice] = Field(min_length=1)
    error: Any = None
    usage: Any = None
    model: Any = None


class _Content(NamedTuple):
    """The text and the thoughts of a message."""

    text: str | None
    """None if the message has none, which differs from an empty text."""
    thoughts: str | None


class Unusable(Exception):
    """A reply that is no answer; a retry may get one."""


class ChatReply(NamedTuple):
    """One answer, with the fields of a record."""

    response: str
    finish_reason: FinishReason
    detail: str
    reasoning: str | None
    usage: Usage
    model: str
    """The server's name of the model; empty if it gives none."""


def read_reply(body: bytes, max_tokens: int, mask: Callable[[str], str] = str) -> ChatReply:
    """Read a reply to a request for at most ``max_tokens`` tokens.

    ``mask`` removes secrets from its strings, after JSON escapes were decoded.

    Raises:
        pydantic.ValidationError: it is not a chat completion.
        Unusable: the server aborted, or the reply is not exactly one answer to the request.
    """
    # Validated twice: pydantic's parser is stricter (UTF-8, whole characters), but only Python's
    # can refuse duplicate keys and mask strings before they are interpreted.
    _ChatCompletion.model_validate_json(body)
    try:
        content = _masked(json.loads(body, object_pairs_hook=_unique_keys), mask)
    except (ValueError, RecursionError) as error:  # a huge integer, or endless nesting
        raise Unusable("JSON that cannot be parsed") from error
    reply = _ChatCompletion.model_validate(content)
    choice = _only_choice(reply)
    message = _content(choice.message)
    usage = _usage(reply.usage)
    end = (choice.finish_reason or "").strip().lower()
    if end in _ABORT_WORDS:
        raise Unusable(f"the server aborted: finish_reason '{end}'")
    if not end:  # some servers give no reason; the token count tells
        full = usage.tokens is not None and usage.tokens >= max_tokens
        end = "length" if full else "stop"
    finish, detail = _finish(choice.message, message, end)
    thoughts = message.thoughts
    if not message.text and thoughts is None and _hides_thoughts(message, finish, reply.usage):
        thoughts = ""  # the record then says that thoughts used up the limit
    model = reply.model if isinstance(reply.model, str) else ""
    return ChatReply(message.text or "", finish, detail, thoughts, usage, one_line(model))


def _unique_keys(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(pairs)
    if len(parsed) < len(pairs):
        names = [name for name, _ in pairs]
        for name in _UNIQUE_KEYS & parsed.keys():
            if names.count(name) > 1:
                raise Unusable(f"the key '{name}' occurs twice")
    return parsed


def _masked(content: Any, mask: Callable[[str], str]) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(content, str):
        return mask(content)
    if isinstance(content, list):
        return [_masked(one, mask) for one in content]
    if isinstance(content, dict):
        return {name: _masked(one, mask) for name, one in content.items()}
    return content


def _only_choice(reply: _ChatCompletion) -> _Choice:
    """Return the assistant's answer; refuse several choices, an error or another role."""
    choice = reply.choices[0]
    if error := reply.error or choice.error:
        text = error.get("message", error) if isinstance(error, dict) else error
        raise Unusable(f"the server reports an error: {one_line(str(text))}")
    if len(reply.choices) > 1:
        raise Unusable(f"{len(reply.choices)} choices, but one was requested")
    role = choice.message.role
    if role and role != "assistant":
        raise Unusable(f"a message with role {one_line(repr(role))}, not the assistant's")
    return choice


def filter_named(code: object) -> str:
    """Return the code of an error if it names a content filter; empty otherwise."""
    name = str(code or "")
    plain = name.lower().replace("-", "_").replace(" ", "")
    return one_line(name) if any(sign in plain for sign in _FILTER_CODES) else ""


def _finish(message: _Message, content: _Content, end: str) -> tuple[FinishReason, str]:
    """Return our finish reason, and the server's word for it where that says more."""
    if end in _TOOL_WORDS or (not content.text and (message.tool_calls or message.function_call)):
        return "filtered", "a tool call, but no tool was offered"
    finish = FINISH_REASONS.get(end)
    if finish == "filtered":
        return "filtered", one_line(end)
    if content.text is None and content.thoughts is None and finish != "length":
        return "filtered", "no content"
    return (finish, "") if finish else ("other", f"finish_reason '{one_line(end)}'")


def _content(message: _Message) -> _Content:
    texts: list[str] = []
    thoughts = [
        one
        for one in (message.reasoning_content, message.reasoning, message.thinking)
        if isinstance(one, str) and one
    ][:1]  # vLLM repeats them in two fields
    refusals = [message.refusal] if isinstance(message.refusal, str) else []
    if isinstance(message.content, str):
        texts.append(message.content)
    for part in message.content if isinstance(message.content, list) else ():
        kind = str(part.get("type", "text"))
        # Part types that are not known hold thoughts under one name or another.
        target = {"refusal": refusals, "text": texts, "output_text": texts}.get(kind, thoughts)
        target.extend(_texts(part))
    text = "".join(texts) if texts else None
    if not text and any(refusals):
        text = "".join(refusals)  # the model's own words, in a separate field
    return _Content(text, "".join(thoughts) if thoughts else None)


def _texts(part: Any) -> list[str]:  # noqa: ANN401 - any JSON value
    """Return the texts in a part of a message: {"text": …}, {"thinking": [{"text": …}]}, …."""
    if isinstance(part, str):
        return [part]
    if isinstance(part, list):
        return [text for one in part for text in _texts(one)]
    if not isinstance(part, dict):
        return []
    names = ("text", "refusal", "thinking", "reasoning", "content", "summary")
    return next((_texts(part[name]) for name in names if part.get(name)), [])


def _usage(counts: Any) -> Usage:  # noqa: ANN401 - any JSON value
    if not isinstance(counts, dict):
        return NO_USAGE
    return Usage(_count(counts.get("completion_tokens")), _count(counts.get("prompt_tokens")))


def _count(value: object) -> int | None:
    """Return a number of tokens; None for a value that cannot be one."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _MAX_TOKENS else None


def _hides_thoughts(content: _Content, finish: FinishReason, usage: Any) -> bool:  # noqa: ANN401
    """Whether the limit was used up by thoughts that the server does not show."""
    if finish != "length":
        return False
    details = usage.get("completion_tokens_details") if isinstance(usage, dict) else None
    hidden = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return content.text is None or bool(_count(hidden))
