"""Settings of preference data: rows with one answer that was preferred to another one."""

from collections.abc import Mapping

from pydantic import ConfigDict, Field

from response_tuning.artifacts import Record
from response_tuning.limits import ColumnName


class PreferencesConfig(Record):
    """Each row gives a pair: its preferred answer is turn 0 of the row, the other one turn 1."""

    model_config = ConfigDict(use_attribute_docstrings=True, hide_input_in_errors=True)

    rejected_column: ColumnName = None
    """Column of the other answer. Defaults to ``rejected``; ``data.response_column`` names the
    preferred one, and defaults to ``chosen``."""
    flip: float = Field(default=0.0, ge=0, le=1, allow_inf_nan=False)
    """Swap the answers of this share of the pairs, drawn by the seed: noise in the labels. Control:
    0.5 leaves no preference, and 1 reverses it."""


def check_pairs(preferences: PreferencesConfig | None, made: Mapping[str, object]) -> None:
    """Refuse steps that make single answers where rows are pairs; ``made`` has them by name.

    Raises:
        ValueError: one of them is there.
    """
    name = next((name for name, part in made.items() if part is not None), None)
    if preferences is not None and name is not None:
        raise ValueError(f"{name} makes single answers, not pairs; remove it or preferences")
