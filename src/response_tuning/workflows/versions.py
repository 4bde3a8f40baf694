"""Cells that two versions of this package made are not compared: their code may differ."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from response_tuning.artifacts import package_versions, read_json
from response_tuning.errors import ConfigError, DataError
from response_tuning.folders import STAGE_MANIFEST
from response_tuning.workflows.experiment import Cell

OURS = "response-tuning"


def check_one_version(cells: Sequence[Cell], run: Path) -> None:
    """Refuse a report on cells of which two versions tuned the models or graded the answers.

    Raises:
        ConfigError: one line with a cell of each version.
    """
    first: dict[str, str] = {}
    for cell in cells:
        for version in (*_tuned_by(cell, run), *_graded_by(cell, run)):
            first.setdefault(version, cell.name)
    if len(first) > 1:
        made = ", ".join(f"{name} by {version}" for version, name in first.items())
        raise ConfigError(
            f"{run}: cells of two versions of {OURS} cannot be compared: {made}; make all of them "
            "with one version, in another folder (rtune run RECIPE --out FOLDER)"
        )


def check_this_version(cells: Sequence[Cell], run: Path) -> None:
    """Refuse to go on with a run whose models another version tuned.

    Grades are no obstacle, because a run grades again whatever another version graded.

    Raises:
        ConfigError: one line that names the first such cell.
    """
    own = package_versions()[OURS]
    for cell in cells:
        for version in _tuned_by(cell, run):
            if version != own:
                raise ConfigError(
                    f"{run}: {cell.name} was tuned by {OURS} {version}, and this is {own}, so the "
                    f"report could not compare them; go on with version {version}, or choose "
                    "another --out"
                )


def _tuned_by(cell: Cell, run: Path) -> Iterator[str]:
    packages = _content(cell.folder(run) / "finetune" / STAGE_MANIFEST).get("packages")
    if cell.tuned and isinstance(packages, dict) and OURS in packages:
        yield packages[OURS]


def _graded_by(cell: Cell, run: Path) -> Iterator[str]:
    graded = _content(cell.folder(run) / "grade" / STAGE_MANIFEST)
    for name in cell.benchmarks:
        inputs = graded.get(name)
        if isinstance(inputs, dict) and isinstance(inputs.get("rules"), str):
            yield inputs["rules"]


def _content(path: Path) -> dict[str, object]:
    try:
        return read_json(path)
    except DataError:  # no such file, or a damaged one, which is made again
        return {}
