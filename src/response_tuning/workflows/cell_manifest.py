"""``<cell>/manifest.json``: what a cell was made from, how far it is, and what it cost.

A report reads it, and needs no model and no benchmark to know which cells are whole.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning import seals
from response_tuning.artifacts import file_digest, read_json, write_json
from response_tuning.errors import ConfigError, DataError
from response_tuning.folders import STAGE_MANIFEST, folder_state
from response_tuning.models.location import is_of_earlier_version
from response_tuning.workflows.arms import OF_UNTUNED
from response_tuning.workflows.cell import engine_config
from response_tuning.workflows.continuing import LINKS
from response_tuning.workflows.experiment import Cell, Experiment, with_reference
from response_tuning.workflows.recorded import recorded_in

if TYPE_CHECKING:
    from response_tuning.report import Training

CELL_MANIFEST = STAGE_MANIFEST
ANSWERED, GRADED = "answered", "graded"
"""How far a cell is; before its answers are complete, it has no manifest."""


def write_cell_manifest(
    cell: Cell, experiment: Experiment, run: Path, status: str, cost: Mapping[str, float]
) -> None:
    """Record that a cell's answers are complete, or that they are graded too."""
    content = {"status": status, "inputs": _inputs(cell, experiment), "cost": cost}
    write_json(cell.folder(run) / CELL_MANIFEST, content)


def cell_cost(cell: Cell, run: Path) -> dict[str, float]:
    """Return the seconds of a cell's stages as its manifest has them, if there is one."""
    cost = _read(cell, run).get("cost")
    stages = cost.items() if isinstance(cost, dict) else ()
    return {stage: seconds for stage, seconds in stages if isinstance(seconds, int | float)}


def cell_training(cell: Cell, run: Path) -> "Training | None":
    """Return what a cell's model was tuned on; None if it is not tuned, or not tuned yet."""
    from response_tuning.report import Training

    path = cell.folder(run) / "finetune" / STAGE_MANIFEST
    if not cell.tuned or not path.exists():
        return None
    try:
        manifest = read_json(path, "settings", "examples_sha256")
    except DataError as error:
        raise DataError(f"{error}; delete it, and run the recipe again") from error
    audit = manifest.get("audit", {})
    return Training(
        objective=manifest["settings"]["objective"],
        twins=tuple(manifest["settings"].get("twins", ())),
        examples=manifest["examples_sha256"],
        kept=audit.get("kept", 0),
        supervised_tokens=audit.get("supervised_tokens", 0),
        steps=manifest.get("steps", 0),
    )


def is_answered(cell: Cell, experiment: Experiment, run: Path) -> bool:
    """Say whether a cell's answers are complete and of this experiment, by its manifest."""
    state = folder_state(
        cell.folder(run), _read(cell, run).get("inputs"), _inputs(cell, experiment)
    )
    return state.recorded and not state.changed


def lacking(cell: Cell, experiment: Experiment, run: Path) -> str:
    """Return what a cell lacks to be in the report, in a few words; empty if it is whole."""
    folder = cell.folder(run)
    scores = [f"grade/{name}.jsonl" for name in cell.benchmarks]
    if not (folder / CELL_MANIFEST).exists():
        # Earlier versions wrote no manifest of a cell, and graded last of all.
        graded = all((folder / name).is_file() for name in scores)
        return "" if graded else "unfinished" if folder.exists() else "not started"
    manifest = _read(cell, run)
    state = folder_state(folder, manifest.get("inputs", {}), _inputs(cell, experiment), scores)
    if state.changed:
        return f"made with another {_first_difference(state.changed)}"
    if manifest.get("status") != GRADED:
        return "answered, not graded"
    return state.flaw or _outdated(cell, experiment, run)


def check_left(cells: Iterable[Cell], experiment: Experiment, run: Path) -> None:
    """Refuse settings with which cells that are not run again would drop out of the report.

    Raises:
        ConfigError: a cell was graded with other settings.
    """
    for cell in cells:
        manifest = _read(cell, run)
        inputs = manifest.get("inputs")
        state = folder_state(cell.folder(run), inputs, _inputs(cell, experiment))
        if manifest.get("status") == GRADED and state.changed:
            raise ConfigError(
                f"{run}: {cell.name} was made with another {_first_difference(state.changed)}, and "
                "--only leaves it so, and out of the report; run without --only, or choose another "
                "--out"
            )


def other_bases(whole: Iterable[Cell], run: Path) -> dict[str, str]:
    """Return the cells that name the base of an earlier cell but were made with another one.

    The weights in a base's folder, or the branch of a hub model, may change between two cells.
    """
    first: dict[tuple[str, str], tuple[str, str]] = {}
    reasons = {}
    for cell in whole:
        named, identity = base_of(cell, run)
        if not identity:
            continue
        other, known = first.setdefault(named, (cell.name, identity))
        if identity != known:
            reasons[cell.name] = f"made with another base than {other}"
    return reasons


def base_of(cell: Cell, run: Path) -> tuple[tuple[str, str], str]:
    """Return the name and revision of a cell's base, and its identity if that was recorded."""
    folder, tuning = cell.folder(run), cell.finetune
    if cell.tuned:
        named = (tuning.base_model, tuning.base_revision)
        if cell.after is not None:
            named = (f"{cell.after}, seed {cell.seed}", "")
        identity = recorded_in(folder / "finetune").get("base")
    elif cell.local:
        config = engine_config(cell, folder)
        named = (str(config.model), config.revision)
        graded = recorded_in(folder / "grade").values()  # by lm-eval, without answers
        made = [recorded_in(folder / "generate"), *graded]
        identities = (part.get("model") for part in made if isinstance(part, dict))
        identity = next((one for one in identities if isinstance(one, str)), None)
    else:
        return ("", ""), ""
    # Earlier versions recorded another digest, which cannot be compared without the weights.
    if not isinstance(identity, str) or is_of_earlier_version(identity):
        return named, ""
    return named, identity


def _inputs(cell: Cell, experiment: Experiment) -> dict[str, Any]:
    """Return the settings that decide a cell's scores.

    Without defaults: a setting that a later version adds leaves earlier cells as they are.
    """
    from response_tuning.finetune.manifest import FREE

    def settings(config: Any, **but: Any) -> dict[str, Any]:  # noqa: ANN401 - any section
        changed: dict[str, Any] = config.model_dump(mode="json", exclude_defaults=True, **but)
        return changed

    judging = {"exclude": {"judge": {*experiment.grade.judge.NOT_JUDGING}}}
    tuned = {"exclude": FREE} if cell.tuned else {"include": OF_UNTUNED}
    own = experiment.arms[cell.variant].variant.reference
    graded = experiment.grade.model_copy(update={"reference": own}) if own else experiment.grade
    return {
        "data": settings(cell.data) if cell.data else None,
        "finetune": settings(cell.finetune, **tuned),
        **{key: value for key in LINKS if (value := getattr(cell, key)) is not None},
        "generate": settings(cell.generate, exclude={"tokens_per_batch"}),
        "benchmarks": [*cell.benchmarks],
        "grade": settings(graded, **judging),
    }


def _first_difference(changed: Mapping[str, tuple[Any, Any]]) -> str:
    """Return the first setting that differs, such as ``finetune.learning_rate``."""
    section, (before, now) = next(iter(changed.items()))
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return section
    return f"{section}.{next(key for key in before | now if before.get(key) != now.get(key))}"


def _outdated(cell: Cell, experiment: Experiment, run: Path) -> str:
    """Say which scores are damaged, or which answers, its own or its reference's, have changed."""
    folder = cell.folder(run)
    graded = recorded_in(folder / "grade")
    manifest = folder / "grade" / STAGE_MANIFEST
    if manifest.exists() and not all(isinstance(graded.get(n), dict) for n in cell.benchmarks):
        return f"{manifest} is damaged"
    for name in cell.benchmarks:  # lm-eval tasks have no answers, and pass
        reference = with_reference(experiment, cell, name, run).reference
        recorded = graded.get(name, {})
        if flaw := seals.flaw(folder / "grade", recorded.get("files", {})):
            return f"grade/{flaw}"
        for key, path in (
            ("completions", folder / "generate" / f"{name}.jsonl"),
            ("reference", Path(reference or "")),
        ):
            if key in recorded and path.is_file() and recorded[key] != file_digest(path):
                return f"{name}: {path} has changed since it was graded"
    return ""


def _read(cell: Cell, run: Path) -> dict[str, Any]:
    return recorded_in(cell.folder(run))
