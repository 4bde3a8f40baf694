"""The label of an answer is on the user's next turn, never on the answer's own row.

In the published annotation, an assistant's row repeats the label of the user turn before it, which
is about the answer before that. So only the rows of users are read, and each labels the answer
before it. A user turn that opens a new topic says nothing about that answer.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from response_tuning.artifacts import Message
from response_tuning.data.feedback.log import Dialogue, Utterance

Label = Literal["satisfied", "dissatisfied", "both", "neither", "new topic", "last"]
"""``last``: the user wrote nothing after it."""


class Answer(NamedTuple):
    """An assistant's turn, what it answered, and what the user wrote next."""

    dialogue: int
    turn: int
    """0-based number among the assistant's turns."""
    earlier: tuple[Message, ...]
    instruction: str
    response: str
    label: Label
    feedback: str
    """The user's next turn; empty if there is none."""

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The conversation up to the answer."""
        return (*self.earlier, Message(role="user", content=self.instruction))


def answers(dialogue: Dialogue) -> list[Answer]:
    """Return the answers of a usable conversation, each with the label of the user's next turn."""
    said = dialogue.utterances
    before = [_message(one) for one in said]
    found: list[Answer] = []
    for place, one in enumerate(said):
        if one.role != "assistant":
            continue
        following = said[place + 1] if place + 1 < len(said) else None
        found.append(
            Answer(
                dialogue.number,
                len(found),
                tuple(before[: place - 1]),
                said[place - 1].content,
                one.content,
                _label(following),
                following.content if following else "",
            )
        )
    return found


def revised(of_dialogue: Sequence[Answer]) -> Iterator[tuple[Answer, Answer]]:
    """Yield (answer that displeased, the next answer) where that one pleased."""
    for answer, following in pairwise(of_dialogue):
        if answer.label == "dissatisfied" and following.label == "satisfied":
            yield answer, following


def _label(following: Utterance | None) -> Label:
    if following is None:
        return "last"
    if following.opens_topic:
        return "new topic"
    if following.satisfied:
        return "both" if following.dissatisfied else "satisfied"
    return "dissatisfied" if following.dissatisfied else "neither"


def _message(utterance: Utterance) -> Message:
    return Message.model_validate({"role": utterance.role, "content": utterance.content})
