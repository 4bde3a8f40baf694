"""The variants of a recipe, crossed with the axes of its grid."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from response_tuning.configs import Config
from response_tuning.errors import ConfigError
from response_tuning.grid import (
    EXCLUDE,
    NAME,
    SECTIONS,
    SEEDS,
    VARIANT,
    Axis,
    Place,
    Point,
    check_exclude,
    is_excluded,
    keys_of,
    leaves,
    points,
    read_axes,
)
from response_tuning.limits import Seed
from response_tuning.recipe import Settings, merged

OF_UNTUNED = {"base_model", "base_revision", "template", "device"}
"""Settings of ``finetune`` that say which model answers where nothing is tuned."""


def each_once(named: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """Refuse a repeated seed or benchmark.

    Raises:
        ValueError: one is repeated.
    """
    if named is not None and len(set(named)) < len(named):
        raise ValueError(f"each may appear only once; remove the repeated one of {named}")
    return named


class VariantConfig(Config):
    """One arm: its sections override sections of the recipe."""

    label: str = ""
    """A description in one line, for the report."""
    data: Settings = Field(default_factory=dict)
    finetune: Settings | None = Field(default_factory=dict)
    """None: the base model as it is, under the same chat template."""
    generate: Settings = Field(default_factory=dict)
    doses: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Numbers of refusals; each makes a variant ``NAME-DOSE``."""
    templates: tuple[str, ...] = ()
    """Chat templates; each makes a variant ``NAME-TEMPLATE``. A file counts by its stem."""
    grid: Settings = Field(default_factory=dict)
    """Axes of this variant: each replaces the recipe's, and null takes the variant out of one."""
    seeds: tuple[Seed, ...] | None = Field(default=None, min_length=1)
    """Some of the recipe's seeds; None is all of them."""
    benchmarks: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Some of the recipe's benchmarks; None is all of them."""
    after: str | None = None
    """Continue this variant: its tuned model, at the same seed, is the base of this one."""
    confidence_of: str | None = None
    """Objective ``sftmix``: split the rows by the confidence of this variant at the same seed."""
    reference: str | None = None
    """Pairwise benchmarks: compare with this variant or file instead of ``grade.reference``."""

    _each_once = field_validator("seeds", "benchmarks")(each_once)

    @model_validator(mode="after")
    def _axes_are_readable(self) -> Self:
        if foreign := {EXCLUDE, SEEDS} & self.grid.keys():
            raise ValueError(f"grid.{min(foreign)}: belongs in the grid of the recipe")
        assert self.axes is not None
        return self

    @property
    def axes(self) -> dict[str, Axis | None]:
        """Its own axes."""
        short = {"templates": self.templates, "doses": self.doses}
        return read_axes(self.grid | {key: values for key, values in short.items() if values})


@dataclass(frozen=True)
class Arm:
    """A variant of the recipe at one point of the grid."""

    variant: VariantConfig
    tuned: bool
    place: Place
    own: Mapping[str, Settings]
    """What it does differently from each section of the recipe."""


def crossed(
    recipe: Mapping[str, Settings], variants: Mapping[str, VariantConfig], grid: Settings
) -> dict[str, Arm]:
    """Return the arms by name, variant by variant; ``recipe`` has the sections of the recipe.

    An axis without effect on a variant, such as the data of one that is not tuned, is not crossed
    with it.

    Raises:
        ConfigError: a name is impossible, two arms have one, or ``exclude`` fits none.
    """
    arms: dict[str, Arm] = {}
    crossed: dict[str, None] = {}
    common = read_axes(grid, fewest=2)
    for name, variant in variants.items():
        if name in {"report", "manifest.json"} or not re.fullmatch(NAME, name):
            raise ConfigError(
                f"variant {name!r}: a name is letters, digits, '-', '_' and '.', begins with "
                "none of '-' and '.', and is not 'report'"
            )
        _check_overridden(name, variant, common)
        axes = {key: axis for key, axis in (common | variant.axes).items() if axis is not None}
        crossed |= dict.fromkeys(axes)
        for arm in _at_points(recipe, variant, {VARIANT: {name: {}}} | axes):
            whole = "-".join(arm.place.values())
            if whole in arms:
                raise ConfigError(f"two variants are named '{whole}'; rename one of them")
            arms[whole] = arm
    for axis in crossed:
        if not any(axis in arm.place for arm in arms.values()):
            raise ConfigError(f"grid: '{axis}' has no effect on any variant; remove it")
    exclude = grid.get(EXCLUDE, [])
    check_exclude(exclude, [arm.place for arm in arms.values()])
    left = {name: arm for name, arm in arms.items() if not is_excluded(arm.place, exclude)}
    if not left:
        raise ConfigError("grid.exclude leaves no variant; remove an entry")
    return left


def _at_points(
    recipe: Mapping[str, Settings], variant: VariantConfig, axes: Mapping[str, Axis]
) -> Iterator[Arm]:
    """Yield the variant at each point of its axes, once where an axis has no effect."""
    seen: list[Place] = []
    sets = {key: keys_of(axis) for key, axis in axes.items()}
    for point in points(axes):
        tuned = variant.finetune is not None and point.tuned
        whole = {key: merged(recipe[key], own) for key, own in _own(variant, point).items()}
        idle = {
            axis
            for axis, keys in sets.items()
            if axis != VARIANT and not any(_has_effect(k, variant, whole, tuned) for k in keys)
        }
        place = {axis: value for axis, value in point.place.items() if axis not in idle}
        if place not in seen:
            seen.append(place)
            (left,) = points({axis: {value: axes[axis][value]} for axis, value in place.items()})
            own = _own(variant, left)
            yield Arm(variant, tuned, place, own if tuned else _of_untuned(own))


def _own(variant: VariantConfig, point: Point) -> dict[str, Settings]:
    return {
        key: merged(getattr(variant, key) or {}, point.settings.get(key, {})) for key in SECTIONS
    }


def _of_untuned(own: Mapping[str, Settings]) -> dict[str, Settings]:
    """Return the settings of a model that is not tuned, which an axis's template is to ask."""
    tuning = {key: value for key, value in own["finetune"].items() if key in OF_UNTUNED}
    asked_in = {key: tuning.pop(key) for key in {"template"} & tuning.keys()}
    return {"data": {}, "finetune": tuning, "generate": asked_in | own["generate"]}


def _has_effect(
    key: str, variant: VariantConfig, whole: Mapping[str, Settings], tuned: bool
) -> bool:
    """Say whether an axis that sets ``key`` makes a difference to a variant."""
    section, _, name = key.partition(".")
    if tuned and section == "data":
        mixture = whole["data"].get("mixture") or {}
        return name == "mixture.refusals" or not (
            name.startswith("mixture.") and not mixture.get("refusals")
        )
    if tuned:
        return not (whole["finetune"].get("method") == "full" and name.startswith("lora_"))
    if section != "finetune":
        return section == "generate"
    if name == "template" and variant.generate.get("template") is not None:
        return False
    return name in OF_UNTUNED and whole["generate"].get("engine", "hf") == "hf"


def _check_overridden(name: str, variant: VariantConfig, common: Mapping[str, Axis | None]) -> None:
    """Refuse a setting of a variant that an axis of the recipe would override."""
    given = {key: getattr(variant, key) or {} for key in SECTIONS}
    own = {*leaves({key: settings for key, settings in given.items() if settings})}
    for axis in common.keys() - variant.axes.keys():
        for key in sorted(own & keys_of(common[axis] or {})):
            raise ConfigError(
                f"variant '{name}': {key}: the grid's '{axis}' sets it; remove it here, or take "
                f"the variant out of that axis: grid: {{{axis}: null}}"
            )
