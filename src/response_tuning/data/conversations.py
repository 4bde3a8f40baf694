"""Conversations in the spellings that are found in the wild, cut into assistant turns."""

from collections.abc import Iterator, Mapping, Sequence
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
"""What a tool was asked and what it said: neither a person's words nor an answer."""
ROLE_KEYS = ("role", "from", "author", "sender", "speaker")
CONTENT_KEYS = ("content", "value", "text", "parts")
_TEXT_PARTS = {"text": "text", "input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Type of a part of a message -> the key of its text."""
_THOUGHTS = {"thinking", "redacted_thinking", "reasoning"}
"""Types of parts that are no part of the answer."""
_TOOL_PARTS = {"tool_use", "tool_call", "tool_result", "function_call"}
_CALLS = ("tool_calls", "function_call")
"""Keys of an assistant's message that asks a tool."""
A_CALL = "a tool call, which is no answer"
LEFT_OUT = "tool turns left out of its context"


class Turn(NamedTuple):
    """What an assistant said, and what it was said to."""

    response: str
    instruction: str | None = None
    earlier: tuple[Message, ...] = ()
    unfit: str = ""
    """Why this must not be an example, though it is context of later turns; empty if it may."""
    rendered: str = ""
    """That the response looks like more than an answer; empty if it does not."""
    left_out: str = ""
    """What of the turns before it is not in ``earlier``, though the response may rest on it."""


class Said(NamedTuple):
    """One message as it was read."""

    role: str
    """``system``, ``user``, ``assistant`` or ``tool``."""
    content: str
    fault: str = ""
    """Why it cannot be used, nor what follows it, except a tool's; empty if it can."""
    unfit: str = ""
    """Why an assistant's message must not be an example; it stays context."""
    calls: bool = False
    """Whether a tool is asked in it, or says something."""


class UnusableRow(Exception):
    """A whole row gives no example; the message is the reason."""


def is_conversation(value: object) -> bool:
    """Say whether ``value`` is a list of messages."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def names_speakers(value: object) -> bool:
    """Say whether ``value`` is a list of messages that say who speaks."""
    return (
        is_conversation(value)
        and isinstance(value, list)
        and any(_first(value[0], (key,)) is not None for key in ROLE_KEYS)
    )


def messages(value: object, column: str) -> list[Message]:
    """Read a list of messages of which every one is needed.

    Raises:
        UnusableRow: it is none, or one of them cannot be used.
    """
    return usable(conversation(value, column))


def usable(found: Sequence[Said]) -> list[Message]:
    """Return messages of which every one is needed, as for a prompt.

    Raises:
        UnusableRow: one of them cannot be used, or is a tool's.
    """
    for said in found:
        if said.fault or said.calls:
            raise UnusableRow(said.fault or "a tool's turn is not supported")
    return [message(said) for said in found]


def conversation(value: object, column: str) -> list[Said]:
    """Read a list of messages: ``role``/``content``, ``from``/``value``, or alternating strings.

    Raises:
        UnusableRow: it is none of these.
    """
    if not isinstance(value, list):
        raise UnusableRow(f"{column} is {kind(value)}, not a list of messages")
    if all(isinstance(item, str) for item in value):  # LIMA: the user begins
        return [Said(("user", "assistant")[place % 2], text) for place, text in enumerate(value)]
    return [_said(item) for item in value]


def message(said: Said) -> Message:
    """Return a message that can be used as the record of it."""
    # It was checked; validating again would cost as much as reading the file.
    return Message.model_construct(role=said.role, content=said.content)


def turns(conversation: Sequence[Said], *, start: int = 0) -> Iterator[Turn]:
    """Yield the assistant's turns from ``start`` on, each with everything before it.

    The instruction is the user's message directly before the turn, if there is one. A tool's turns
    are left out of what was before; after a message that cannot be used, no turn can.
    """
    before: list[Message] = []
    fault = left_out = ""
    for place, said in enumerate(conversation):
        if said.role == "assistant" and place >= start:
            after = f"after a message that cannot be used: {fault}" if fault else ""
            yield _turn(said, before, said.fault or after or said.unfit, left_out)
        if said.calls:
            left_out = LEFT_OUT
        elif said.fault:
            fault = fault or said.fault
        if said.content or not (said.calls or said.fault):
            before.append(message(said))


def text(value: object, name: str) -> str:
    """Return ``value``, with nothing stripped; null is the empty text.

    Raises:
        UnusableRow: it is no text; the reason names ``name``.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UnusableRow(f"{name} is {kind(value)}, not text")
    return value


def kind(value: object) -> str:
    """Return what ``value`` is, in the words of JSON."""
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    names: dict[type, str] = {str: "text", list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value), f"of type {type(value).__name__}")


def _turn(said: Said, before: list[Message], unfit: str, left_out: str) -> Turn:
    instruction = None
    earlier = before
    if before and before[-1].role == "user":
        instruction = before[-1].content or None
        earlier = before[:-1]
    return Turn(said.content, instruction, tuple(earlier), unfit, left_out=left_out)


def _said(message: object) -> Said:
    if not isinstance(message, Mapping):
        raise UnusableRow(f"a message is {kind(message)}, not an object")
    named = _first(message, ROLE_KEYS)
    name = named.strip().lower() if isinstance(named, str) else ""
    if name not in ROLES:
        calls = name in TOOL_ROLES
        return Said(TOOL if calls else "", "", f"role {shown(named)} is not supported", calls=calls)
    role = ROLES[name]
    content, fault, calls = _content(_first(message, CONTENT_KEYS))
    if role != "assistant":
        return Said(role, content, fault, calls=calls)
    calls = calls or any(message.get(key) for key in _CALLS)
    return Said(role, content, fault, A_CALL if calls else unlearned(message), calls)


def _content(value: object) -> tuple[str, str, bool]:
    """Return the text of a message, why it has none, and whether a tool has a part in it."""
    if value is None or isinstance(value, str):
        return value or "", "", False
    if not isinstance(value, list | Mapping):
        return "", f"the content of a message is {kind(value)}, not text", False
    texts: list[str] = []
    calls = False
    for part in [value] if isinstance(value, Mapping) else value:
        type_, held = _part(part)
        if isinstance(held, str):
            texts.append(held)
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
