"""Judged answers: rows with an instruction, an answer to it, a reference and a grade.

A row becomes one candidate and, when it is written, two examples: the digit behind a prompt that
shows the reference, and behind one that does not.
"""

from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from response_tuning.configs import SourceConfig
from response_tuning.data.columns import Columns, choose, row_turns
from response_tuning.data.conversations import Turn, UnusableRow
from response_tuning.data.steps.curation import Candidate, Step
from response_tuning.data.survey import Survey
from response_tuning.errors import DataError
from response_tuning.judging import DIGITS, JudgingConfig, judging_prompt
from response_tuning.readers import shown

DIGIT, REFERENCE = "digit", "reference"
SHUFFLED_AMONG = 20
"""Rows among which ``shuffle`` exchanges digits; fewer at the end."""


def choose_judged(
    survey: Survey, config: SourceConfig, judging: JudgingConfig, name: str
) -> Columns:
    """Decide which columns hold instruction, answer, reference and digit.

    Raises:
        DataError: the source called ``name`` lacks one of them.
    """
    columns = {
        "data.judging.digit_column": judging.digit_column or DIGIT,
        "data.judging.reference_column": judging.reference_column or REFERENCE,
    }
    for flag, column in columns.items():
        if column not in survey.columns:
            raise DataError(
                f"{name}: no column {shown(column)}, so no judged answers; name it with {flag}, "
                "or leave out data.judging"
            )
    others = {key: one for key, one in survey.columns.items() if key not in columns.values()}
    used = choose(Survey(survey.rows, others), config, name)
    if used.instruction is None:
        raise DataError(
            f"{name}: no column of instructions; a judge with a reference sees the instruction: "
            "name its column with --instruction-column"
        )
    digit, reference = columns.values()
    return used._replace(digit=digit, reference=reference)


def judged_turn(fields: Mapping[str, Any], columns: Columns, judging: JudgingConfig) -> Turn:
    """Return a row's digit behind the prompt with the reference; the other prompt is beside it.

    Raises:
        UnusableRow: an answer, a reference or a digit is missing or cannot be read, or the row is
            a conversation of several turns.
    """
    assert columns.digit is not None
    assert columns.reference is not None
    turns = row_turns(fields, columns)
    turn = turns[-1]
    if len(turns) > 1 or turn.earlier or turn.instruction is None:
        raise UnusableRow("not one instruction with one answer")
    if turn.unfit or not turn.response or turn.response.isspace():
        raise UnusableRow(turn.unfit or "empty response")
    reference = fields.get(columns.reference)
    if not isinstance(reference, str) or not reference.strip():
        raise UnusableRow("no reference")
    digit = str(fields.get(columns.digit)).strip()
    if digit not in DIGITS:
        raise UnusableRow("the grade is no digit from 0 to 9")
    seen = turn.instruction if judging.sees == "both" else None
    return Turn(
        digit,
        judging_prompt(turn.response, turn.instruction, reference=reference, form=judging.form),
        without_reference=judging_prompt(turn.response, seen, form=judging.form),
    )


def shuffle(seed: int) -> Step:
    """Return a step that exchanges the digits among every ``SHUFFLED_AMONG`` rows."""
    draw = Random(f"shuffle {seed}")

    def step(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        waiting: list[Candidate] = []
        for candidate in candidates:
            waiting.append(candidate)
            if sum(not one.dropped for one in waiting) == SHUFFLED_AMONG:
                yield from _exchanged(waiting, draw)
                waiting = []
        yield from _exchanged(waiting, draw)

    return step


def _exchanged(candidates: list[Candidate], draw: Random) -> list[Candidate]:
    kept = [one for one in candidates if not one.dropped]
    digits = [one.answer.response for one in kept]
    for candidate, digit in zip(kept, draw.sample(digits, len(digits)), strict=True):
        candidate.answer = candidate.answer._replace(response=digit)
    return candidates
