"""Five datasets of one task each, as the code of Hewitt et al. 2024 (arXiv 2409.14254) has them.

They are used in file order, at most 1,000 rows of each. A row becomes an instruction and a
response, word for word; a row without one of them is not used.
"""

import ast
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from response_tuning.readers import Row

Render: TypeAlias = Callable[[Mapping[str, Any]], tuple[str, str]]
"""Returns the instruction and the response of a row; raises ``KeyError`` without its columns."""
AT_MOST = 1000
EXAMPLES = {"gsm8k": 1000, "mbpp": 374, "poetry": 571, "recipes": 1000, "chess": 1000}
"""Examples that each training split has."""


def rendered(row: Row, render: Render) -> Row:
    """Return a row with an instruction and a response, or with a fault that says what it lacks."""
    if row.fault:
        return row
    try:
        instruction, response = render(row.fields)
    except KeyError as error:
        return Row(row.where, {}, f"no column {error} with text")
    return Row(row.where, {"instruction": instruction, "response": response})


def gsm8k(fields: Mapping[str, Any]) -> tuple[str, str]:
    """Return a question of GSM8K, and its answer with ``<<...>>`` marks and the last line."""
    return _text(fields, "question"), _text(fields, "answer")


def mbpp(fields: Mapping[str, Any]) -> tuple[str, str]:
    """Return a task of MBPP, and its Python code."""
    return _text(fields, "text"), _text(fields, "code")


def poetry(fields: Mapping[str, Any]) -> tuple[str, str]:
    """Return a request for a poem by its name, and the poem."""
    return f"Write a poem called {_text(fields, 'poem name')}", _text(fields, "content")


def recipes(fields: Mapping[str, Any]) -> tuple[str, str]:
    """Return a request for a dish, and its ingredients as a list before the instructions."""
    listed = fields.get("Cleaned_Ingredients")
    if isinstance(listed, str):  # the dataset holds the list as Python would print it
        try:
            listed = ast.literal_eval(listed)
        except (SyntaxError, ValueError):
            listed = None
    if not isinstance(listed, list) or not listed:
        raise KeyError("Cleaned_Ingredients")
    lines = "\n".join(f" - {ingredient}" for ingredient in listed)
    return f"Recipe for {_text(fields, 'Title')}", f"{lines}\n\n{_text(fields, 'Instructions')}"


def chess(fields: Mapping[str, Any]) -> tuple[str, str]:
    """Return the lines with both players' ratings, and the line with the moves."""
    lines = _text(fields, "text").splitlines()

    def line(begins: str) -> str:
        for one in lines:
            if one.startswith(begins):
                return one
        raise KeyError(begins)

    return f"{line('[WhiteElo')}\n{line('[BlackElo')}\n", line("1. ")


def _text(fields: Mapping[str, Any], column: str) -> str:
    value = fields.get(column)
    if not isinstance(value, str) or not value.strip():
        raise KeyError(column)
    return value
