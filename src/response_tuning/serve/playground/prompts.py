"""A prompt as it is sent, split into what a model is trained to write and what it only reads."""

from collections.abc import Sequence
from typing import NamedTuple

from response_tuning.artifacts import Message
from response_tuning.errors import TemplateError
from response_tuning.templates import Chat


class Stretch(NamedTuple):
    """A part of a rendered prompt."""

    text: str
    supervised: bool
    """Whether training on a conversation gives it loss: answers and their stop tokens have it."""


def stretches(chat: Chat, messages: Sequence[Message]) -> tuple[Stretch, ...]:
    """Split the prompt for ``messages``; the texts join up to the whole prompt.

    Raises:
        TemplateError: the template cannot render them.
    """
    rendered = chat.prompt(messages)
    end = _turn_end(chat)
    parts: list[Stretch] = []
    read = 0
    # In the order of the conversation: an answer may repeat words of a question.
    for message in messages:
        found = rendered.find(message.content.strip(), read)
        if found < 0:
            continue  # the template left it out or changed it: it stays part of what is only read
        until = found + len(message.content.strip())
        if message.role == "assistant":
            until += len(end) if rendered.startswith(end, until) else 0
            parts += [Stretch(rendered[read:found], False), Stretch(rendered[found:until], True)]
            read = until
        else:
            parts.append(Stretch(rendered[read:until], False))
            read = until
    parts.append(Stretch(rendered[read:], False))
    return tuple(_joined([part for part in parts if part.text]))


def _turn_end(chat: Chat) -> str:
    """Return the stop token with what the template prints in front of it."""
    try:
        turn_end = chat.turn_end
    except TemplateError:  # turns end in text, which no model is trained to write
        return ""
    return turn_end.gap + chat.decode([turn_end.stop_id])


def _joined(parts: Sequence[Stretch]) -> list[Stretch]:
    joined: list[Stretch] = []
    for part in parts:
        if joined and joined[-1].supervised == part.supervised:
            joined[-1] = Stretch(joined[-1].text + part.text, part.supervised)
        else:
            joined.append(part)
    return joined
