"""The files of the ``alpaca_eval`` package: answers, annotations, difficulties of instructions.

Written ones can be given to that package; published ones can be counted here.
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

TIE = 0
"""A preference of 0 in annotations of AlpacaEval 1; later ones say 1.5."""


class Annotation(NamedTuple):
    """What an annotator said of a model's answer and a reference's."""

    instruction: str
    reference: str
    """``output_1``."""
    output: str
    """``output_2``, the model's."""
    preference: float | None
    """For the model's, 0..1; None where the annotator failed."""


class WinRate(NamedTuple):
    """Counts of preferences above, at and below one half, and their mean."""

    rate: float
    """0..1; a tie is half a win."""
    standard_error: float
    wins: int
    ties: int
    losses: int
    n: int
    """Annotations that hold a preference."""


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

    A preference is 1 where the reference's output is preferred, 2 where the model's is, anything
    between where the annotator weighs the two, 0 for a tie, and null where it failed.

    Raises:
        DataError: the file cannot be read, or a preference is none of these.
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
    """Return the mean preference over the annotations that hold one, and what it is made of.

    Raises:
        DataError: none holds one.
    """
    found = [one.preference for one in annotations if one.preference is not None]
    if not found:
        raise DataError(f"none of the {len(annotations)} annotations holds a preference")
    return WinRate(
        rate=fmean(found),
        standard_error=stdev(found) / math.sqrt(len(found)) if len(found) > 1 else 0.0,
        wins=sum(preference > 0.5 for preference in found),
        ties=sum(preference == 0.5 for preference in found),
        losses=sum(preference < 0.5 for preference in found),
        n=len(found),
    )


def read_difficulties(path: Path) -> dict[str, float]:
    """Return the difficulty of each instruction: columns ``instruction`` and ``difficulty``.

    Raises:
        DataError: the file cannot be read, or a difficulty is no number.
    """
    return {cell(row, "instruction"): _number(row, "difficulty") for row in read(path)}


def _preference(row: Row) -> float | None:
    if row.fields.get("preference") is None:
        return None
    value = _number(row, "preference")
    if value == TIE:
        return 0.5
    if not 1 <= value <= 2:
        raise DataError(f"{row.where}: expected a preference of 0, or from 1 to 2; found {value}")
    return value - 1


def _number(row: Row, column: str) -> float:
    value = row.fields.get(column)
    try:
        number = float(value)  # type: ignore[arg-type]  # what is no number is told below
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{row.where}: expected a number in '{column}', found {shown(value)}")
    return number
