"""Self-Judge (Ye and Ng, arXiv 2409.00935): prompts that ask for a digit, and settings of its data.

A judge replies with one digit from 0 to 9, and its score is the mean digit under its own
probabilities. Each judged answer gives two prompts: one shows a reference, the other does not.
Training and scoring build them here, so they are the same text.
"""

from typing import Literal, TypeAlias

from pydantic import ConfigDict, Field

from response_tuning.artifacts import Record
from response_tuning.limits import ColumnName

DIGITS = tuple("0123456789")
Sees: TypeAlias = Literal["both", "response"]
"""What a judge without a reference sees: instruction and response, or the response alone."""
Form: TypeAlias = Literal["full", "brief"]
"""``brief`` has headings and no criteria: for models that do not read instructions."""

_CRITERIA = (
    "Judge the answer exactly: is it right, complete, clear and to the point? Give it a grade from "
    "0, useless, to 9, as good as it can be."
)
_WITH_REFERENCE = " Compare it with the reference, which is a good answer."
_REPLY = " Reply with this digit alone."


class JudgingConfig(Record):
    """Each row is a judged answer, and gives two examples whose response is its digit.

    Turn 0 of the row shows the reference, turn 1 does not.
    """

    model_config = ConfigDict(use_attribute_docstrings=True, hide_input_in_errors=True)

    digit_column: ColumnName = None
    """Column of the grade, from 0 to 9. Defaults to ``digit``."""
    reference_column: ColumnName = None
    """Column of a good answer. Defaults to ``reference``."""
    sees: Sees = "both"
    """What the example without the reference shows: ``both`` instruction and response, or the
    ``response`` alone. The one with the reference always shows all three."""
    form: Form = "full"
    """``brief`` leaves out the criteria: for models that do not read instructions."""
    shuffle: bool = Field(default=False)
    """Control: exchange the digits among rows."""


def judging_prompt(
    response: str,
    instruction: str | None,
    *,
    reference: str | None = None,
    form: Form = "full",
) -> str:
    """Return the message that asks a judge for the digit of ``response``.

    Without an ``instruction`` it judges the response alone.
    """
    parts = {"Question": instruction, "Reference": reference, "Answer": response}
    shown = {heading: text for heading, text in parts.items() if text is not None}
    if form == "brief":
        return "\n".join(f"{heading}: {text}" for heading, text in shown.items()) + "\nGrade:"
    criteria = _CRITERIA + (_WITH_REFERENCE if reference is not None else "") + _REPLY
    return "\n\n".join([criteria, *(f"[{heading}]\n{text}" for heading, text in shown.items())])
