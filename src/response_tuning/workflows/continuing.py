"""Variants that need another one first: its model as their base, or its confidence in each row."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.artifacts import read_json
from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.folders import STAGE_MANIFEST
from response_tuning.grid import Place, matching
from response_tuning.registry import unknown

if TYPE_CHECKING:
    from response_tuning.workflows.arms import Arm
    from response_tuning.workflows.experiment import Cell

LINKS = ("after", "confidence_of")
"""Keys of a variant that name the other one, which is taken at the same seed."""


def earlier_variants(
    arms: "Mapping[str, Arm]", places: Mapping[str, Place]
) -> dict[str, dict[str, str]]:
    """Return variant -> key -> the variant that it needs, of those that need one.

    In a grid, the name of a value stands for the variant there that matches.

    Raises:
        ConfigError: there is no such variant, it is not tuned, or it leads back to this one.
    """
    found: dict[str, dict[str, str]] = {}
    for name, arm in arms.items():
        for key in LINKS:
            if (named := getattr(arm.variant, key)) is not None:
                found.setdefault(name, {})[key] = _found(name, key, named, arms, places)
    for name in found:
        if name in _needed(name, found):
            raise ConfigError(f"variant '{name}': after: it leads back to itself; remove one")
    return found


def linked(cell: "Cell", links: Mapping[str, str]) -> "Cell":
    """Return the cell with the variants that it needs."""
    return replace(cell, after=links.get("after"), confidence_of=links.get("confidence_of"))


def _found(
    name: str, key: str, named: str, arms: "Mapping[str, Arm]", places: Mapping[str, Place]
) -> str:
    others = {other: one for one, other in matching(named, places)}
    earlier = named if named in arms else others.get(name)
    if earlier is None:
        raise ConfigError(f"variant '{name}': {key}: {unknown('variant', named, [*arms])}")
    if not (arms[name].tuned and arms[earlier].tuned):
        untuned = earlier if arms[name].tuned else name
        raise ConfigError(f"variant '{name}': {key}: '{untuned}' is not tuned; remove '{key}'")
    return earlier


def _needed(name: str, links: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the variants that a variant needs, directly or through others, each once."""
    needed: list[str] = []
    left = [*links.get(name, {}).values()]
    while left:
        if (one := left.pop()) not in needed:
            needed.append(one)
            left.extend(links.get(one, {}).values())
    return needed


def in_order(cells: "Sequence[Cell]", every: "Sequence[Cell]") -> "list[Cell]":
    """Return cells so that each follows those that it needs, and otherwise as they are."""
    links = {cell.variant: _links(cell) for cell in every}
    return sorted(cells, key=lambda cell: len(_needed(cell.variant, links)))


def _links(cell: "Cell") -> dict[str, str]:
    named = {key: getattr(cell, key) for key in LINKS}
    return {key: value for key, value in named.items() if value is not None}


def check_continuing(every: "Sequence[Cell]", chosen: "Sequence[Cell]", run: Path) -> None:
    """Refuse a cell that needs one that leaves no such thing, or is neither tuned nor chosen.

    Raises:
        ConfigError: one line that names both.
    """
    for cell in every:
        for key, named in _links(cell).items():
            other = earlier_cell(cell, key, every)
            if other is None:
                raise ConfigError(
                    f"variant '{cell.variant}': {key}: '{named}' has no seed {cell.seed}; give "
                    "both the same seeds"
                )
            _check_leaves(cell, key, other)
            if cell in chosen and other not in chosen and not is_tuned(other, run):
                raise ConfigError(
                    f"{cell.name} continues {other.name}, which is not tuned yet; name it too, "
                    f"with --only {other.name}"
                )


def _check_leaves(cell: "Cell", key: str, other: "Cell") -> None:
    where = f"variant '{cell.variant}': {key}: '{other.variant}'"
    if key == "after" and other.finetune.method != "full" and not other.finetune.merge:
        raise ConfigError(f"{where} leaves an adapter; set finetune.merge=true there")
    if key == "confidence_of" and not other.finetune.record_confidence:
        raise ConfigError(
            f"{where} records no confidence; set finetune.record_confidence=true there"
        )


def earlier_cell(cell: "Cell", key: str, every: "Sequence[Cell]") -> "Cell | None":
    """Return the cell that ``cell`` names under ``key``; None if there is no such cell."""
    of_seed = (other for other in every if other.seed == cell.seed)
    return next((other for other in of_seed if other.variant == getattr(cell, key)), None)


def is_ready(cell: "Cell", every: "Sequence[Cell]", run: Path) -> bool:
    """Whether the models that the cell needs are finished."""
    others = [earlier_cell(cell, key, every) for key in _links(cell)]
    return all(other is not None and is_tuned(other, run) for other in others)


def is_tuned(cell: "Cell", run: Path) -> bool:
    """Whether the cell's model is finished."""
    from response_tuning.finetune.manifest import FINISHED

    try:
        status = read_json(cell.folder(run) / "finetune" / STAGE_MANIFEST, "status")["status"]
    except DataError:
        return False
    return bool(status == FINISHED)


def as_continued(cell: "Cell", every: "Sequence[Cell]", run: Path) -> "Cell":
    """Return the cell as it is tuned; see ``continued``."""
    return replace(cell, finetune=continued(cell, every, run))


def continued(cell: "Cell", every: "Sequence[Cell]", run: Path) -> FinetuneConfig:
    """Return how the cell's model is tuned, with the files of the cells that it needs."""
    from response_tuning.finetune.confidence import FILE

    changes: dict[str, object] = {}
    before, sure = (earlier_cell(cell, key, every) for key in LINKS)
    if before is not None:
        changes = {"base_model": str(before.folder(run) / "finetune"), "base_revision": "main"}
        if cell.finetune.template == before.finetune.template:
            changes["template"] = "native"  # it is inside that model's tokenizer
    if sure is not None:
        file = str(sure.folder(run) / "finetune" / FILE)
        changes["objective_settings"] = {**cell.finetune.objective_settings, "confidence": file}
    return cell.finetune.model_copy(update=changes)
