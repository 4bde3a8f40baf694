"""A grid: axes of settings that are crossed with the variants, and where a variant lies in it.

    grid:
      bases: {llama: meta-llama/Llama-3.1-8B, olmo: {finetune: {base_model: allenai/OLMo-7B}}}
      doses: [0, 100]
      finetune.learning_rate: [1e-4, 2e-4]

A value has a name, its own text unless the recipe gives one. Two variants *match* if they differ in
one axis alone, of the axes that both lie on.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import reduce
from itertools import combinations, product
from typing import Any, NamedTuple, TypeAlias, get_origin

from pydantic import BaseModel

from response_tuning.configs import DataConfig, FinetuneConfig, GenerateConfig
from response_tuning.errors import ConfigError
from response_tuning.recipe import Settings, merged
from response_tuning.registry import suggestion, unknown
from response_tuning.validation import model_in

Place: TypeAlias = Mapping[str, str]
"""Axis -> the name of a variant's value on it; ``variant`` is the first axis."""
VARIANT = "variant"
SHORT = {
    "bases": "finetune.base_model",
    "datasets": "data.source",
    "objectives": "finetune.objective",
    "methods": "finetune.method",
    "templates": "finetune.template",
    "doses": "data.mixture.refusals",
    "refinement": "data.refinement",
}
"""Axes with a name of their own, and the setting of each."""
EXCLUDE, SEEDS = "exclude", "seeds"
"""Keys of a grid that are no axis of its variants."""
SECTIONS: dict[str, type[BaseModel]] = {
    "data": DataConfig,
    "finetune": FinetuneConfig,
    "generate": GenerateConfig,
}
NAME = r"\w[\w.-]*"
"""Pattern of the names of variants and of values: they become folders."""

Axis: TypeAlias = Mapping[str, Settings]
"""Name of a value -> the sections of the recipe that it sets."""


class Point(NamedTuple):
    """One value of each axis."""

    place: Place
    settings: Mapping[str, Settings]
    """The sections that the values set together."""
    tuned: bool
    """Whether no value sets ``finetune: null``."""


def read_axes(grid: Settings, *, fewest: int = 1) -> dict[str, Axis | None]:
    """Return the axes of a grid; None for one that a variant is taken out of.

    Raises:
        ValueError: an axis is unknown, has fewer than ``fewest`` values or values without distinct
            names, or two axes set the same.
    """
    given = {key: values for key, values in flat(grid) if key not in (EXCLUDE, SEEDS)}
    axes = {key: _axis(key, values, fewest) for key, values in given.items()}
    crossed = [(key, keys_of(axis)) for key, axis in axes.items() if axis is not None]
    for (one, sets), (other, also) in combinations(crossed, 2):
        if both := sorted(sets & also):
            raise ValueError(f"'{one}' and '{other}' both set {both[0]}; remove one of them")
    return axes


def flat(grid: Settings, section: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each axis under its dotted key; ``finetune: {epochs: [1, 2]}`` is ``finetune.epochs``.

    A mapping of names to values is an axis and not a section.
    """
    for key, given in grid.items():
        name = f"{section}{key}"
        if isinstance(given, Mapping) and _is_section(name, given):
            yield from flat({**given}, f"{name}.")
        else:
            yield name, given


def points(axes: Mapping[str, Axis]) -> Iterator[Point]:
    """Yield the points of a grid; the last axis changes fastest."""
    for values in product(*(axis.items() for axis in axes.values())):
        place = {key: name for key, (name, _) in zip(axes, values, strict=True)}
        every = [settings for _, settings in values]
        # Null would otherwise be lost under another axis of the section, such as the base model.
        parts = [{key: part for key, part in one.items() if part is not None} for one in every]
        yield Point(place, reduce(merged, parts, {}), tuned=parts == every)


def keys_of(axis: Axis) -> set[str]:
    """Return the dotted keys that the values of an axis set."""
    return {key for settings in axis.values() for key in leaves(settings)}


def leaves(settings: Mapping[str, Any], section: str = "") -> Iterator[str]:
    """Yield the dotted key of every value."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{section}{key}.")
        else:
            yield f"{section}{key}"


def check_exclude(exclude: object, places: Sequence[Place]) -> None:
    """Refuse an entry of a grid's ``exclude`` that fits no variant.

    Raises:
        ConfigError: one line that names it.
    """
    if not isinstance(exclude, Sequence) or not all(isinstance(one, Mapping) for one in exclude):
        raise ConfigError("grid.exclude: expected a list, such as [{bases: llama, doses: 100}]")
    known = {axis: None for place in places for axis in place}
    for number, entry in enumerate(exclude):
        if not entry:
            raise ConfigError(f"grid.exclude.{number}: it names no axis, such as {{doses: 100}}")
        for axis in entry:
            if axis not in known:
                raise ConfigError(f"grid.exclude.{number}: {unknown('axis', axis, [*known])}")
        try:
            found = any(is_excluded(place, [entry]) for place in places)
        except ValueError as error:
            raise ConfigError(f"grid.exclude.{number}: {error}") from error
        if not found:
            raise ConfigError(f"grid.exclude.{number}: no variant is at {dict(entry)}; remove it")


def is_excluded(place: Place, exclude: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether a place fits an entry of ``exclude``: axis -> a value's name, or several."""
    return any(
        all(place.get(axis) in _names(wanted) for axis, wanted in entry.items())
        for entry in exclude
    )


def differing_axis(one: Place, other: Place) -> str | None:
    """Return the axis in which two places differ; None if it is not one alone."""
    differing = [axis for axis in one if axis in other and one[axis] != other[axis]]
    return differing[0] if len(differing) == 1 else None


def matching(name: str, places: Mapping[str, Place]) -> list[tuple[str, str]]:
    """Return (variant at the value ``name``, variant that matches it), in the order of ``places``.

    They differ in the axis of that value alone.
    """
    return [
        (one, other)
        for one, place in places.items()
        for other, there in places.items()
        if (axis := differing_axis(place, there)) is not None and place[axis] == name
    ]


def _axis(key: str, given: object, fewest: int) -> Axis | None:
    setting = SHORT.get(key, key)
    _check_setting(key, setting)
    if given is None and fewest == 1:
        return None
    if isinstance(given, Mapping):
        named = {str(name): value for name, value in given.items()}
    elif isinstance(given, (list, tuple)):
        named = {value_name(value, key): value for value in given}
        if len(named) < len(given):
            raise ValueError(f"{key}: two values have the same name; name them: {{NAME: VALUE}}")
    else:
        raise ValueError(  # noqa: TRY004 - pydantic turns only a ValueError into a message
            f"{key}: expected a list of values, or names with values; found {given!r}"
        )
    if len(named) < fewest:
        has = "one value" if named else "no value"
        raise ValueError(f"{key}: it has {has}; give it {fewest} or more, or set {setting} instead")
    for name in named:
        if not re.fullmatch(NAME, name):
            raise ValueError(
                f"{key}: a value is named {name!r}; a name is letters, digits, '-', '_' and '.', "
                f"and begins with none of '-' and '.': name it: {{NAME: {name}}}"
            )
    return {name: _sections(setting, value) for name, value in named.items()}


def _check_setting(axis: str, setting: str) -> None:
    if setting.rpartition(".")[2] == "seed":
        raise ValueError(
            f"{axis}: the seed of a cell is one of the recipe's 'seeds'; list it there"
        )
    if not _is_setting(setting):
        section, _, name = axis.rpartition(".")
        model = _model_at(section)
        inside = [f"{key}.{axis}" for key, model in SECTIONS.items() if axis in model.model_fields]
        if model:
            hint = suggestion(name, [*model.model_fields])
        else:
            hint = suggestion(axis, [*SHORT, SEEDS, EXCLUDE]) or suggestion(axis, inside)
        known = f"known are {', '.join(SHORT)}, {SEEDS} and settings such as finetune.learning_rate"
        raise ValueError(f"unknown axis '{axis}': {hint or known}")


def _is_setting(key: str) -> bool:
    section, *parts = key.split(".")
    model = SECTIONS.get(section)
    for part in parts:
        field = model.model_fields.get(part) if model else None
        if field is None:
            return False
        if get_origin(field.annotation) is dict:
            return (
                True  # whatever its owner takes, such as finetune.objective_settings.prompt_weight
            )
        model = model_in(field.annotation)
    return bool(parts)


def _sections(setting: str, value: object) -> Settings:
    """Return the sections that a value sets: its own, or the one ``setting`` of its axis."""
    if isinstance(value, Mapping) and value and value.keys() <= SECTIONS.keys():
        return {**value}
    for part in reversed(setting.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def value_name(value: object, key: str) -> str:
    """Return the name of a value of a list: ``Llama-3.1-8B`` for a hub id, the stem of a file.

    Raises:
        ValueError: it has none, such as a section.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError(  # noqa: TRY004 - pydantic turns only a ValueError into a message
            f"{key}: {value!r} has no short name; name the values: {{NAME: VALUE}}"
        )
    if isinstance(value, str):
        return re.sub(r"(?<=.)\.[A-Za-z]\w*$", "", value.rstrip("/").rpartition("/")[2])
    if isinstance(value, int):
        return str(value)
    # The shorter of 0.05 and 5e-2, as people write them.
    return min(repr(value), f"{Decimal(repr(value)).normalize():e}".replace("e+", "e"), key=len)


def _names(wanted: object) -> list[str]:
    every = wanted if isinstance(wanted, (list, tuple)) else [wanted]
    return [one if isinstance(one, str) else value_name(one, EXCLUDE) for one in every]


def _model_at(setting: str) -> type[BaseModel] | None:
    """Return the model of a section such as ``data.mixture``; None for any other key.

    A list of models, such as ``data.also``, is no section.
    """
    first, *parts = setting.split(".")
    model = SECTIONS.get(first)
    for part in parts:
        field = model.model_fields.get(part) if model else None
        is_list = field is not None and get_origin(field.annotation) in (tuple, list)
        model = model_in(field.annotation) if field and not is_list else None
    return model


def _is_section(name: str, given: Mapping[str, Any]) -> bool:
    """Say whether a mapping holds axes of a section, and not the named values of one axis.

    What holds a list where a section belongs is one, and may have a typo.
    """
    model = _model_at(name)
    if name in SECTIONS or any(isinstance(values, (list, tuple)) for values in given.values()):
        return name in SECTIONS or model is not None or _is_setting(f"{name}.key")
    return model is not None and given.keys() <= model.model_fields.keys()
