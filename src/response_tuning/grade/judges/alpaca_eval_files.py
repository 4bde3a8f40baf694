"""The files of the ``alpaca_eval`` package: answers, annotations, difficulties of instructions.

That package reads what this file writes, and this file reads what that package published.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from response_tuning.errors import DataError
from response_tuning.grade.benchmark import Item
from response_tuning.grade.sources import cell
from response_tuning.readers import Row, read, shown

TIED_PREFERENCE = 0
"""A tie in annotations of AlpacaEval 1; later versions write 1.5."""


class Annotation(NamedTuple):
    """An annotator's preference between a model's answer and a reference's."""

    instruction: str
    reference: str
    """``output_1``."""
    output: str
    """``output_2``, the model's."""
    preference: float | None
    """Preference for the model's answer, 0..1; None if the annotator failed."""


class WinRate(NamedTuple):
    """Counts of preferences above, at and below one half, and their mean."""

    rate: float
    """0..1; a tie is half a win."""
    standard_error: float
    wins: int
    ties: int
    losses: int
    n: int
    """Annotations with a preference."""


def model_outputs(
    items: Sequence[Item], answers: Mapping[str, str | None], generator: str
) -> list[dict[str, str]]:
    """Return the rows of a ``model_outputs.json``: the answers of ``generator``, by item id.

    The rows are in the order of the items, which for AlpacaEval is the package's order.
    """
    return [
        {
            "dataset": item.group,
            "instruction": item.prompt[-1].content,
            "output": answers[item.item_id] or "",
            "generator": generator,
        }
        for item in items
    ]


def read_model_outputs(path: Path) -> dict[str, str]:
    """Return the output to each instruction.

    Raises:
        DataError: the file cannot be read, or has two outputs to one instruction.
    """
    outputs: dict[str, str] = {}
    for row in read(path):
        instruction = cell(row, "instruction")
        if instruction in outputs:
            raise DataError(f"{row.where}: a second output to {shown(instruction)}; remove one")
        outputs[instruction] = cell(row, "output")
    return outputs


def read_annotations(path: Path) -> list[Annotation]:
    """Read ``annotations.json`` of AlpacaEval 1 or 2.

    A preference is 1 for the reference's output, 2 for the model's, between them if the annotator
    weighs the two, 0 for a tie, and null if the annotator failed.

    Raises:
        DataError: the file cannot be read, or a preference is another value.
    """
    return [
        Annotation(
            instruction=cell(row, "instruction"),
            reference=cell(row, "output_1"),
            output=cell(row, "output_2"),
            preference=_preference(row),
        )
        for row in read(path)
    ]


def win_rate(annotations: Sequence[Annotation]) -> WinRate:
    """Return the mean preference over the annotations that have one, with its counts.

    Raises:
        DataError: no annotation has one.
    """
    preferences = [one.preference for one in annotations if one.preference is not None]
    if not preferences:
        raise DataError(f"none of the {len(annotations)} annotations has a preference")
    return WinRate(
        rate=fmean(preferences),
        standard_error=stdev(preferences) / math.sqrt(len(preferences))
        if len(preferences) > 1
        else 0.0,
        wins=sum(preference > 0.5 for preference in preferences),
        ties=sum(preference == 0.5 for preference in preferences),
        losses=sum(preference < 0.5 for preference in preferences),
        n=len(preferences),
    )


def read_difficulties(path: Path) -> dict[str, float]:
    """Return the difficulty of each instruction: columns ``instruction`` and ``difficulty``.

    Raises:
        DataError: the file cannot be read, or a difficulty is not a number.
    """
    return {cell(row, "instruction"): _number(row, "difficulty") for row in read(path)}


def _preference(row: Row) -> float | None:
    if row.fields.get("preference") is None:
        return None
    value = _number(row, "preference")
    if value == TIED_PREFERENCE:
        return 0.5
    if not 1 <= value <= 2:
        raise DataError(f"{row.where}: expected a preference of 0, or from 1 to 2; found {value}")
    return value - 1


def _number(row: Row, column: str) -> float:
    value = row.fields.get(column)
    try:
        number = float(value)  # type: ignore[arg-type]  # other types are reported below
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{row.where}: expected a number in '{column}', found {shown(value)}")
    return number
