"""Objectives: what an example becomes before it becomes tokens. The subject of the research.

An objective maps an example to segments of text and says which of them carry loss: any number of
either, in any order. A row is their text as it stands, and the stop token. Each of the four here
supervises the same thing, the response; they differ in what stands before it.
"""

from collections.abc import Callable
from typing import NamedTuple

from response_tuning.artifacts import Example, Message
from response_tuning.registry import Registry
from response_tuning.templates import Chat

IGNORED = -100
"""Label of a token that carries no loss."""


class Segment(NamedTuple):
    """A stretch of text that is tokenised on its own."""

    text: str
    supervised: bool
    """Whether its tokens carry loss. Such text is plain text, in which no token is special."""


class UnfitError(ValueError):
    """An example that an objective cannot use; the message is the reason that is counted."""


Another = Callable[[], Example]
"""Looks up the other example that the seed has drawn for this one; few objectives ask."""

Objective = Callable[[Example, Another, Chat], list[Segment]]
"""(example, its other one, chat template) -> segments."""

OBJECTIVES: Registry[Objective] = Registry("objective")


@OBJECTIVES.register("instruction-tuning")
def instruction_tuning(example: Example, other: Another, chat: Chat) -> list[Segment]:
    """Learn p(response | instruction), with earlier turns as context (paper, section 3)."""
    return [Segment(chat.prompt(_asked(example)), False), Segment(example.response, True)]


@OBJECTIVES.register("response-tuning")
def response_tuning(example: Example, other: Another, chat: Chat) -> list[Segment]:
    """Learn p(response): neither instruction nor user tag is ever shown (paper, section 3)."""
    return [Segment(chat.opening, False), Segment(example.response, True)]


@OBJECTIVES.register("response-tuning-empty-user")
def response_tuning_empty_user(example: Example, other: Another, chat: Chat) -> list[Segment]:
    """Learn p(response | an empty user turn): Hewitt et al., arXiv 2409.14254."""
    empty = [Message(role="user", content="")]
    return [Segment(chat.prompt(empty), False), Segment(example.response, True)]


@OBJECTIVES.register("shuffled-pairs")
def shuffled_pairs(example: Example, other: Another, chat: Chat) -> list[Segment]:
    """Learn p(response | someone else's instruction): the control in which pairing is wrong."""
    return [Segment(chat.prompt(_asked(other())), False), Segment(example.response, True)]


def _asked(example: Example) -> list[Message]:
    if example.instruction is None:
        raise UnfitError("no instruction")
    return [*example.earlier, Message(role="user", content=example.instruction)]
