"""Conversations in the formats of public datasets, cut into assistant turns."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any, Literal, NamedTuple

from response_tuning.artifacts import Message
from response_tuning.data.marks import unlearned
from response_tuning.readers import shown

Role = Literal["system", "user", "assistant"]
TOOL = "tool"
ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "ai": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "claude": "assistant",
}
"""Names of the roles in chat, ShareGPT, Open Assistant and Gemini files -> ours."""
TOOL_ROLES = {"tool", "function", "observation", "ipython", "environment"} | {
    f"{what}_{part}"
    for what in ("tool", "function")
    for part in ("call", "calls", "response", "result", "output")
}
"""Roles of tool calls and tool results, which are neither a person's words nor an answer."""
ROLE_KEYS = ("role", "from", "author", "sender", "speaker")
CONTENT_KEYS = ("content", "value", "text", "parts")
_TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Type of a part of a message -> the key of its text."""
_THOUGHTS = {"thinking", "redacted_thinking", "reasoning"}
"""Types of parts that do not belong to the answer."""
_TOOL_PARTS = {"tool_use", "tool_call", "tool_result", "function_call"}
_CALLS = ("tool_calls", "function_call")
"""Keys of an assistant's message that calls a tool."""
A_CALL = "a tool call, which is no answer"
LEFT_OUT = "tool turns left out of its context"


class Turn(NamedTuple):
    """An assistant's response and its context."""

    response: str
    instruction: str | None = None
    earlier: tuple[Message, ...] = ()
    unfit: str = ""
    """Why the turn is context only and must not become an example; empty if it may."""
    rendered: str = ""
    """A flag if the response looks like a whole conversation; else empty."""
    left_out: str = ""
    """A flag if ``earlier`` lacks something that the response may depend on; else empty."""
    rejected: str | None = None
    """The answer to which ``response`` was preferred; None where a row holds one answer."""
    without_reference: str | None = None
    """Of a judged answer, the prompt that does not show the reference; else None."""


class SourceMessage(NamedTuple):
    """One message of a source, with what keeps it from being used."""

    role: str
    """``system``, ``user``, ``assistant`` or ``tool``."""
    content: str
    fault: str = ""
    """Why neither this message nor, unless it is a tool's, what follows can be used; else empty."""
    unfit: str = ""
    """Why an assistant's message is context only; else empty."""
    calls: bool = False
    """Whether it is a tool's message or calls a tool."""


class UnusableRow(Exception):
    """A row that gives no example; the message is the reason."""


def is_conversation(value: object) -> bool:
    """Whether ``value`` is a list of messages."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def names_speakers(value: object) -> bool:
    """Whether ``value`` is a list of messages whose first one names its speaker."""
    return (
        is_conversation(value)
        and isinstance(value, list)
        and any(_first(value[0], (key,)) is not None for key in ROLE_KEYS)
    )


def messages(value: object, column: str) -> list[Message]:
    """Read a list of messages of which every one is needed.

    Raises:
        UnusableRow: ``value`` is no such list, or one of its messages cannot be used.
    """
    return usable(conversation(value, column))


def usable(conversation: Sequence[SourceMessage]) -> list[Message]:
    """Return the messages of a conversation of which every one is needed, as for a prompt.

    Raises:
        UnusableRow: one of them cannot be used, or is a tool's.
    """
    for message in conversation:
        if message.fault or message.calls:
            raise UnusableRow(message.fault or "a tool's turn is not supported")
    return [without_notes(message) for message in conversation]


def conversation(value: object, column: str) -> list[SourceMessage]:
    """Read a list of messages: ``role``/``content``, ``from``/``value``, or alternating strings.

    Raises:
        UnusableRow: ``value`` is none of these.
    """
    if not isinstance(value, list):
        raise UnusableRow(f"{column} is {kind(value)}, not a list of messages")
    if all(isinstance(item, str) for item in value):  # LIMA: the user begins
        roles = cycle(("user", "assistant"))
        return [SourceMessage(role, content) for role, content in zip(roles, value, strict=False)]
    return [_read_message(item) for item in value]


def without_notes(message: SourceMessage) -> Message:
    """Return role and content of a usable message as a record."""
    # It was checked; validating again would cost as much as reading the file.
    return Message.model_construct(role=message.role, content=message.content)


def turns(conversation: Sequence[SourceMessage], *, start: int = 0) -> Iterator[Turn]:
    """Yield the assistant's turns from ``start`` on, each with its context.

    The instruction is the user's message directly before the turn, if any. The context leaves out
    tool turns. No turn after an unusable message is usable.
    """
    before: list[Message] = []
    fault = left_out = ""
    for place, message in enumerate(conversation):
        if message.role == "assistant" and place >= start:
            after = f"after a message that cannot be used: {fault}" if fault else ""
            yield _turn(message, before, message.fault or after or message.unfit, left_out)
        # A missing tool turn leaves a later answer plausible, so that one is only flagged. Behind
        # any other missing message, nobody knows what a later answer refers to.
        if message.calls:
            left_out = LEFT_OUT
        elif message.fault:
            fault = fault or message.fault
        if message.content or not (message.calls or message.fault):
            before.append(without_notes(message))


def text(value: object, name: str) -> str:
    """Return ``value`` unchanged; null becomes the empty text.

    Raises:
        UnusableRow: ``value`` is not text; the reason names ``name``.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UnusableRow(f"{name} is {kind(value)}, not text")
    return value


def kind(value: object) -> str:
    """Return the type of ``value`` in the words of JSON, with an article."""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    names: dict[type, str] = {str: "text", list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value), f"of type {type(value).__name__}")


def _turn(response: SourceMessage, before: list[Message], unfit: str, left_out: str) -> Turn:
    instruction = None
    earlier = before
    if before and before[-1].role == "user":
        instruction = before[-1].content or None
        earlier = before[:-1]
    return Turn(response.content, instruction, tuple(earlier), unfit, left_out=left_out)


def _read_message(message: object) -> SourceMessage:
    if not isinstance(message, Mapping):
        raise UnusableRow(f"a message is {kind(message)}, not an object")
    named = _first(message, ROLE_KEYS)
    name = named.strip().lower() if isinstance(named, str) else ""
    if name not in ROLES:
        calls = name in TOOL_ROLES
        fault = f"role {shown(named)} is not supported"
        return SourceMessage(TOOL if calls else "", "", fault, calls=calls)
    role = ROLES[name]
    content, fault, calls = _content(_first(message, CONTENT_KEYS))
    if role != "assistant":
        return SourceMessage(role, content, fault, calls=calls)
    # Chat APIs put calls in a key of the message, Anthropic and Gemini into its parts.
    calls = calls or any(message.get(key) for key in _CALLS)
    return SourceMessage(role, content, fault, A_CALL if calls else unlearned(message), calls)


def _content(value: object) -> tuple[str, str, bool]:
    """Return the text of a message, why it has none, and whether it involves a tool."""
    if value is None or isinstance(value, str):
        return value or "", "", False
    if not isinstance(value, list | Mapping):
        return "", f"the content of a message is {kind(value)}, not text", False
    # Thoughts are skipped and tool parts noted, but an image or a file makes the message unusable:
    # the answer may be about it.
    texts: list[str] = []
    calls = False
    for part in [value] if isinstance(value, Mapping) else value:
        type_, content = _part(part)
        if isinstance(content, str):
            texts.append(content)
        elif type_ in _TOOL_PARTS:
            calls = True
        elif type_ not in _THOUGHTS:
            return "", "the content of a message has a part that is not text", False
    return "".join(texts), "", calls


def _part(part: object) -> tuple[str, object]:
    """Return the type of a part of a message, and its text if it has one."""
    if not isinstance(part, Mapping):
        return "text", part
    type_ = str(part.get("type") or "text")
    return type_, part.get(_TEXT_PARTS.get(type_, ""))


def _first(message: Mapping[str, Any], names: Sequence[str]) -> object:
    for name in names:
        if message.get(name) is not None:
            return message[name]
    return None
