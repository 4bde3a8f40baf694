"""Whether a run's folder still holds what the run left, and its base is the one it tuned."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from response_tuning.artifacts import read_json
from response_tuning.errors import DataError, ModelError
from response_tuning.models.location import ModelFolder, is_of_folder, sha256

logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_WEIGHTS = (".safetensors", ".safetensors.index.json")


def check_weights(folder: Path) -> None:
    """Refuse a finished run whose weights are no longer those that its manifest has digests of.

    Raises:
        ModelError: they are not.
    """
    manifest = _manifest(folder)
    files = manifest.get("files")
    if manifest.get("status") != "finished" or not isinstance(files, Mapping):
        return
    for name, recorded in files.items():
        # Other files may be edited on purpose, and ``adapter/`` of a merged model is not loaded.
        if not name.endswith(_WEIGHTS) or "/" in name or not isinstance(recorded, Mapping):
            continue
        if not _is_as_recorded(folder / name, recorded):
            raise ModelError(
                f"{folder}: {name} is no longer what the run left; put the file back, or delete "
                f"{folder / _MANIFEST} to use the model as it is"
            )


def check_base(adapter: Path, base: ModelFolder) -> None:
    """Refuse an adapter over another base folder than the one that its manifest names.

    Raises:
        ModelError: the base has changed since, or is another one.
    """
    manifest = _manifest(adapter)
    tuned = manifest.get("base")
    if manifest.get("status") == "running" or not isinstance(tuned, str) or base.commit:
        return
    if not is_of_folder(tuned):  # a model of the hub, of which this is a copy
        return
    if not base.is_known_as(tuned):
        raise ModelError(
            f"{adapter}: its base model {base.path} is no longer the one that it was tuned on (it "
            f"was {tuned}, and is {base.identity}); put that base back, tune again, or delete "
            f"{adapter / _MANIFEST} to use the adapter as it is"
        )


def _manifest(folder: Path) -> dict[str, Any]:
    if not (folder / _MANIFEST).is_file():
        return {}
    try:
        return read_json(folder / _MANIFEST)
    except DataError as error:
        logger.warning("%s; the model is not verified", error)
        return {}


def _is_as_recorded(path: Path, recorded: Mapping[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != recorded.get("bytes"):
        return False
    return sha256(path) == recorded.get("sha256")
