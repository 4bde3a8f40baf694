"""Blind votes between the answers of several panes."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from response_tuning.artifacts import Message, Record, digest
from response_tuning.errors import ConfigError
from response_tuning.serve.playground.records import Answer

TIE: Literal["tie"] = "tie"
BOTH_BAD: Literal["both bad"] = "both bad"


class Ballot(Record):
    """What the page sends: the answers in the order in which they were shown, and the choice."""

    answers: Annotated[tuple[str, ...], Field(min_length=2)]
    """Ids, from left to right."""
    choice: Annotated[int, Field(ge=0)] | Literal["tie", "both bad"]
    """Index of the best answer, or that none is better."""
    rater: Annotated[str, Field(pattern=r"^\w[\w.-]{0,60}$")] = "me"
    blind: bool
    """Whether the page hid which pane wrote which answer."""


class Candidate(Record):
    """An answer that was voted on."""

    pane: str
    answer: str
    """Id of the answer."""
    model: str
    template: str
    response: str


class Vote(Record):
    """A ballot with what the page did not know."""

    rater: str
    item_id: str
    """Digest of the user's messages: votes on the same question are about one item."""
    prompt: tuple[Message, ...]
    """The conversation of the first candidate; the others have other earlier answers."""
    candidates: tuple[Candidate, ...]
    """In the order in which they were shown."""
    choice: int | Literal["tie", "both bad"]
    """Index of the best candidate, or that none is better."""
    blind: bool
    at: str


Voted: TypeAlias = Callable[[Sequence[Vote]], Any]
"""Receives all votes after each."""


def counted(ballot: Ballot, answers: Sequence[Answer], at: str) -> Vote:
    """Return the vote that a ballot on ``answers`` is.

    Raises:
        ConfigError: the answers are to different questions, of one pane, or fewer than the choice.
    """
    questions = {_questions(answer) for answer in answers}
    if len(questions) > 1:
        raise ConfigError("a vote is between answers to the same question")
    if len({answer.pane for answer in answers}) < len(answers):
        raise ConfigError("a vote is between answers of different panes")
    if isinstance(ballot.choice, int) and ballot.choice >= len(answers):
        raise ConfigError(f"choice {ballot.choice}: there are {len(answers)} answers")
    return Vote(
        rater=ballot.rater,
        item_id=digest(*questions.pop()),
        prompt=answers[0].prompt,
        candidates=tuple(
            Candidate(
                pane=answer.pane,
                answer=answer.id,
                model=answer.model,
                template=answer.template,
                response=answer.response,
            )
            for answer in answers
        ),
        choice=ballot.choice,
        blind=ballot.blind,
        at=at,
    )


def _questions(answer: Answer) -> tuple[str, ...]:
    return tuple(message.content for message in answer.prompt if message.role != "assistant")
