"""Preference data: rows with a preferred and a rejected answer to one conversation.

The conversation is in columns of its own, or in front of both answers, as in files for TRL. An
answer is a text, a message or the end of a list of messages. A row becomes one candidate, so
whatever drops one answer drops the pair; it becomes two examples when it is written.
"""

from collections.abc import Iterable, Iterator, Mapping
from random import Random
from typing import Any

from response_tuning.configs import DataConfig
from response_tuning.data.columns import (
    CONVERSATION_COLUMNS,
    PREFERENCES,
    Columns,
    choose,
    row_turns,
)
from response_tuning.data.conversations import Turn, UnusableRow
from response_tuning.data.steps.curation import Candidate, Step, each
from response_tuning.data.survey import INSTRUCTION_COLUMNS, Survey
from response_tuning.errors import ConfigError, DataError
from response_tuning.readers import shown

CHOSEN, REJECTED = PREFERENCES
FLIPPED = "preference flipped"
FLIPPED_AMONG = 20
"""See ``flip``."""


def choose_pair(survey: Survey, config: DataConfig, name: str) -> Columns:
    """Decide which columns hold the two answers, and which the conversation before them.

    Raises:
        ConfigError: one column is named for both answers.
        DataError: the source called ``name`` lacks a column of answers.
    """
    assert config.preferences is not None
    chosen = config.response_column or CHOSEN
    rejected = config.preferences.rejected_column or REJECTED
    if chosen == rejected:
        raise ConfigError(f"column {shown(chosen)} cannot hold both the preferred and other answer")
    flags = {chosen: "response_column", rejected: "preferences.rejected_column"}
    for column, flag in flags.items():
        if column not in survey.columns:
            raise DataError(
                f"{name}: no column {shown(column)}, so no pairs of answers; name it with "
                f"data.{flag}, or leave out data.preferences"
            )
    others = {key: column for key, column in survey.columns.items() if key != rejected}
    before = config.instruction_column
    if before is None and not any(key in others for key in INSTRUCTION_COLUMNS):
        # WildFeedback: the dialogue that both answers continue.
        spoken = (
            key for key in CONVERSATION_COLUMNS if key in others and others[key].conversations
        )
        before = next(spoken, None)
    named = config.model_copy(update={"response_column": chosen, "instruction_column": before})
    return choose(Survey(survey.rows, others), named, name)._replace(rejected=rejected)


def pair_turn(fields: Mapping[str, Any], columns: Columns) -> Turn:
    """Return the preferred answer of a row, with the other one beside it.

    Raises:
        UnusableRow: an answer is missing or cannot be read, or the two answer different
            conversations.
    """
    assert columns.rejected is not None
    if columns.rejected not in fields:
        raise UnusableRow(f"no column {shown(columns.rejected)}")
    chosen, rejected = (
        _last_turn(fields, columns, of) for of in (columns.response, columns.rejected)
    )
    if (chosen.instruction, chosen.earlier) != (rejected.instruction, rejected.earlier):
        raise UnusableRow("the two answers follow different conversations")
    if not rejected.unfit and (not rejected.response or rejected.response.isspace()):
        raise UnusableRow("empty rejected response")
    if chosen.response == rejected.response:
        raise UnusableRow("both answers are the same")
    return chosen._replace(
        rejected=rejected.response,
        unfit=chosen.unfit or rejected.unfit,
        rendered=chosen.rendered or rejected.rendered,
        left_out=chosen.left_out or rejected.left_out,
    )


def _last_turn(fields: Mapping[str, Any], columns: Columns, column: str) -> Turn:
    answer = fields.get(column)
    message = [answer] if isinstance(answer, Mapping) else answer
    return row_turns({**fields, columns.response: message}, columns)[-1]


def swapped(turn: Turn) -> Turn:
    """Return the pair with its answers exchanged."""
    assert turn.rejected is not None
    return turn._replace(response=turn.rejected, rejected=turn.response)


def for_both(steps: Iterable[Step]) -> Iterator[Step]:
    """Yield steps that look at one answer, each for the preferred and then for the rejected one."""
    for step in steps:
        yield step
        yield _exchange
        yield step
        yield _exchange


def _exchange(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
    for candidate in candidates:
        if candidate.answer.rejected is not None:
            candidate.answer = swapped(candidate.answer)
        yield candidate


def flip(share: float, seed: int) -> Step:
    """Return a step that swaps the answers of a ``share`` of the pairs.

    Of every ``FLIPPED_AMONG`` pairs, the share is exact, up to one: with single draws, 0.5 of 320
    pairs would leave a preference of 6 % either way. Pairs that a smaller share swaps are among
    those of a larger one with the same seed.
    """
    draws: list[float] = []
    draw = Random(f"flip {seed}")

    def look(candidate: Candidate) -> None:
        if not draws:
            ranks = draw.sample(range(FLIPPED_AMONG), FLIPPED_AMONG)
            draws.extend((rank + draw.random()) / FLIPPED_AMONG for rank in ranks)
        if draws.pop() < share:
            candidate.answer = swapped(candidate.answer)
            candidate.flag(FLIPPED)

    return each(look)
