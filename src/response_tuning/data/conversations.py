"""Conversations in the spellings that are found in the wild, cut into assistant turns."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from response_tuning.artifacts import Message
from response_tuning.readers import shown

ROLES = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "human": "user",
    "gpt": "assistant",
}
"""Chat and ShareGPT names of the roles -> ours."""


class Turn(NamedTuple):
    """What an assistant said, and what it was said to."""

    response: str
    instruction: str | None = None
    earlier: tuple[Message, ...] = ()


class UnusableRow(Exception):
    """A whole row gives no example; the message is the reason."""


def is_conversation(value: object) -> bool:
    """Say whether ``value`` is a list of messages."""
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def messages(value: object, column: str) -> list[Message]:
    """Read a list of messages: ``role``/``content``, ``from``/``value``, or alternating strings.

    Raises:
        UnusableRow: it is none of these.
    """
    if not isinstance(value, list):
        raise UnusableRow(f"{column} is {kind(value)}, not a list of messages")
    if all(isinstance(item, str) for item in value):  # LIMA: the user begins
        pairs = [(("user", "assistant")[place % 2], text) for place, text in enumerate(value)]
    else:
        pairs = [_role_and_content(item) for item in value]
    # Checked above; validating again would cost as much as reading the file.
    return [Message.model_construct(role=role, content=content) for role, content in pairs]


def turns(conversation: list[Message], *, start: int = 0) -> Iterator[Turn]:
    """Yield the assistant's turns from ``start`` on, each with everything before it.

    The instruction is the user's message directly before the turn, if there is one.
    """
    for place in range(start, len(conversation)):
        if conversation[place].role != "assistant":
            continue
        earlier = conversation[:place]
        instruction = None
        if earlier and earlier[-1].role == "user":
            instruction = earlier.pop().content or None
        yield Turn(conversation[place].content, instruction, tuple(earlier))


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


def _role_and_content(message: object) -> tuple[str, str]:
    if not isinstance(message, Mapping):
        raise UnusableRow(f"a message is {kind(message)}, not an object")
    named = _first(message, "role", "from")
    role = ROLES.get(named) if isinstance(named, str) else None
    if role is None:
        raise UnusableRow(f"role {shown(named)} is not supported")
    return role, text(_first(message, "content", "value"), "the content of a message")


def _first(message: Mapping[str, Any], *names: str) -> object:
    for name in names:
        if message.get(name) is not None:
            return message[name]
    return None
