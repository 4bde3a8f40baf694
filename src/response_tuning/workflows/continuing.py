"""Variants that continue another one: its tuned model, at the same seed, is their base."""

from collections.abc import Mapping, Sequence
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


def earlier_variants(arms: "Mapping[str, Arm]", places: Mapping[str, Place]) -> dict[str, str]:
    """Return variant -> the variant that it continues, of those that continue one.

    In a grid, the name of a value stands for the variant there that matches.

    Raises:
        ConfigError: there is no such variant, it is not tuned, or it leads back to this one.
    """
    found: dict[str, str] = {}
    for name, arm in arms.items():
        named = arm.variant.after
        if named is None:
            continue
        others = {other: one for one, other in matching(named, places)}
        earlier = named if named in arms else others.get(name)
        if earlier is None:
            raise ConfigError(f"variant '{name}': after: {unknown('variant', named, [*arms])}")
        if not (arm.tuned and arms[earlier].tuned):
            untuned = earlier if arm.tuned else name
            raise ConfigError(f"variant '{name}': after: '{untuned}' is not tuned; remove 'after'")
        found[name] = earlier
    for name in found:
        if name in _chain(name, found)[1:]:
            raise ConfigError(f"variant '{name}': after: it leads back to itself; remove one")
    return found


def _chain(name: str, earlier: Mapping[str, str]) -> list[str]:
    """Return a variant and those that it continues, the nearest first, each at most twice."""
    chain = [name]
    while chain[-1] in earlier and chain.count(chain[-1]) < 2:
        chain.append(earlier[chain[-1]])
    return chain


def in_order(cells: "Sequence[Cell]", every: "Sequence[Cell]") -> "list[Cell]":
    """Return cells so that each follows the one that it continues, and otherwise as they are."""
    earlier = {cell.variant: cell.after for cell in every if cell.after is not None}
    return sorted(cells, key=lambda cell: len(_chain(cell.variant, earlier)))


def check_continuing(every: "Sequence[Cell]", chosen: "Sequence[Cell]", run: Path) -> None:
    """Refuse a cell whose earlier one leaves no whole model, or is neither tuned nor chosen.

    Raises:
        ConfigError: one line that names both.
    """
    for cell in every:
        if cell.after is None:
            continue
        other = earlier_cell(cell, every)
        if other is None:
            raise ConfigError(
                f"variant '{cell.variant}': after: '{cell.after}' has no seed {cell.seed}; give "
                "both the same seeds"
            )
        if other.finetune.method != "full" and not other.finetune.merge:
            raise ConfigError(
                f"variant '{cell.variant}': after: '{cell.after}' leaves an adapter; set "
                "finetune.merge=true there"
            )
        if cell in chosen and other not in chosen and not is_tuned(other, run):
            raise ConfigError(
                f"{cell.name} continues {other.name}, which is not tuned yet; name it too, with "
                f"--only {other.name}"
            )


def earlier_cell(cell: "Cell", every: "Sequence[Cell]") -> "Cell | None":
    """Return the cell that ``cell`` continues; None if it continues none, or there is none."""
    of_seed = (other for other in every if other.seed == cell.seed)
    return next((other for other in of_seed if other.variant == cell.after), None)


def is_ready(cell: "Cell", every: "Sequence[Cell]", run: Path) -> bool:
    """Whether the cell continues none, or one whose model is finished."""
    other = earlier_cell(cell, every)
    return other is None or is_tuned(other, run)


def is_tuned(cell: "Cell", run: Path) -> bool:
    """Whether the cell's model is finished."""
    from response_tuning.finetune.manifest import FINISHED

    try:
        status = read_json(cell.folder(run) / "finetune" / STAGE_MANIFEST, "status")["status"]
    except DataError:
        return False
    return bool(status == FINISHED)


def continued(cell: "Cell", every: "Sequence[Cell]", run: Path) -> FinetuneConfig:
    """Return how the cell's model is tuned: from that of the cell that it continues, if any."""
    other = earlier_cell(cell, every)
    if other is None:
        return cell.finetune
    changes = {"base_model": str(other.folder(run) / "finetune"), "base_revision": "main"}
    if cell.finetune.template == other.finetune.template:
        changes["template"] = "native"  # it is inside that model's tokenizer
    return cell.finetune.model_copy(update=changes)
