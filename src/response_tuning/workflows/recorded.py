"""What the manifest of a stage, or of a cell, says about the files beside it."""

from pathlib import Path
from typing import Any

from response_tuning.artifacts import read_json
from response_tuning.errors import DataError
from response_tuning.folders import STAGE_MANIFEST


def recorded_in(folder: Path) -> dict[str, Any]:
    """Return the manifest in ``folder``; one that is damaged is as good as none, and made again."""
    try:
        return read_json(folder / STAGE_MANIFEST)
    except DataError:
        return {}
