"""Refuse a run's folder whose weights changed since the run, or an adapter whose base did."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from response_tuning.artifacts import read_json
from response_tuning.errors import DataError, ModelError
from response_tuning.models.location import ModelFolder, is_of_folder, sha256

logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_WEIGHT_SUFFIXES = (".safetensors", ".safetensors.index.json")


def check_weights(folder: Path) -> None:
    """Refuse a finished run whose weights differ from the digests in its manifest.

    Raises:
        ModelError: they differ.
    """
    manifest = _manifest(folder)
    files = manifest.get("files")
    # While a run is in progress, its manifest describes the weights before the last write.
    if manifest.get("status") != "finished" or not isinstance(files, Mapping):
        return
    for name, recorded in files.items():
        # Users may edit other files, and ``adapter/`` of a merged model is not loaded.
        if not name.endswith(_WEIGHT_SUFFIXES) or "/" in name or not isinstance(recorded, Mapping):
            continue
        if not _matches(folder / name, recorded):
            raise ModelError(
                f"{folder}: {name} changed after the run finished; put the file back, or delete "
                f"{folder / _MANIFEST} to use the model as it is"
            )


def check_base(adapter: Path, base: ModelFolder) -> None:
    """Refuse an adapter over another base folder than the one in its manifest.

    Raises:
        ModelError: the base has changed since, or is another one.
    """
    manifest = _manifest(adapter)
    recorded = manifest.get("base")
    if manifest.get("status") == "running" or not isinstance(recorded, str):
        return
    # A folder may be a copy of the hub model that the manifest names: they cannot be compared.
    if base.commit or not is_of_folder(recorded) or base.is_known_as(recorded):
        return
    raise ModelError(
        f"{adapter}: its base model {base.path} changed after tuning (it was {recorded}, now "
        f"{base.identity}); put that base back, tune again, or delete {adapter / _MANIFEST} to "
        "use the adapter as it is"
    )


def _manifest(folder: Path) -> dict[str, Any]:
    if not (folder / _MANIFEST).is_file():
        return {}
    try:
        return read_json(folder / _MANIFEST)
    except DataError as error:
        logger.warning("%s; the model is not verified", error)
        return {}


def _matches(path: Path, recorded: Mapping[str, Any]) -> bool:
    # The size first: it costs nothing, and shows a truncated file.
    if not path.is_file() or path.stat().st_size != recorded.get("bytes"):
        return False
    return sha256(path) == recorded.get("sha256")
