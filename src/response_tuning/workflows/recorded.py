"""What the manifest of a stage, or of a cell, says about the files beside it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from response_tuning.artifacts import read_json
from response_tuning.errors import DataError
from response_tuning.folders import STAGE_MANIFEST, folder_state


def recorded_in(folder: Path) -> dict[str, Any]:
    """Return the manifest in ``folder``; one that is damaged is as good as none, and made again."""
    try:
        return read_json(folder / STAGE_MANIFEST)
    except DataError:
        return {}


def has_answers(folder: Path, inputs: Mapping[str, Any], counts: Mapping[str, int]) -> bool:
    """Say whether ``folder`` has as many answers to each benchmark as ``counts`` says.

    An answer that was changed by hand counts, and is graded.
    """
    files = {folder / f"{name}.jsonl": count for name, count in counts.items()}
    state = folder_state(folder, recorded_in(folder) or None, inputs, [one.name for one in files])
    return state.whole and all(_rows(path) == count for path, count in files.items())


def _rows(path: Path) -> int:
    """Return how many whole rows a file has; one that was cut does not end in a brace."""
    with path.open("rb") as lines:
        return sum(line.rstrip().endswith(b"}") for line in lines)
