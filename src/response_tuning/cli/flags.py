"""Groups of options: a command takes a whole group as one typed parameter.

Typer reads one parameter per option. ``spread`` shows it the options of each group, and hands the
command the group, whose fields mypy knows.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any


class FlagGroup:
    """Base of the groups, which are dataclasses; a field is an option, by default None."""

    def given(self) -> dict[str, Any]:
        """Return the options that the user gave, by the names of their fields."""
        return chosen(**vars(self))


def chosen(**values: object) -> dict[str, Any]:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of ``command`` that is a group by the options of the group.

    Raises:
        ValueError: two options have one name.
    """
    flat: list[inspect.Parameter] = []
    groups: dict[str, tuple[type[FlagGroup], list[str]]] = {}
    for name, parameter in _parameters(command).items():
        kind = parameter.annotation
        if isinstance(kind, type) and issubclass(kind, FlagGroup):
            options = _parameters(kind)
            flat += options.values()
            groups[name] = kind, [*options]
        else:
            flat.append(parameter)
    # By keyword alone: an option without a default may then follow one with a default.
    keywords = [option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in flat]

    @wraps(command)
    def spread_out(**values: object) -> None:
        for name, (kind, options) in groups.items():
            values[name] = kind(**{option: values.pop(option) for option in options})
        command(**values)

    spread_out.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    return spread_out


def _parameters(of: Callable[..., object]) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(of, eval_str=True).parameters)
