"""A GGUF model as an ordinary model folder, which everything else can load.

The folder lies in a cache and is made once. Its weights are dequantised: training needs numbers,
and workers, PEFT, a merge, vLLM and lm-eval read safetensors.
"""

import logging
import shutil
from functools import cache
from pathlib import Path

from response_tuning.artifacts import digest, package_versions, read_json, write_json
from response_tuning.errors import ModelError
from response_tuning.folders import lock
from response_tuning.models.files import CACHE, cache_folder
from response_tuning.models.gguf import reading

logger = logging.getLogger(__name__)

PROVENANCE = "gguf.json"
"""The file in a converted folder that says what it was made from."""
_VERSION = "1"
"""Changes when this code writes other weights, ids or settings for the same file."""
_CONVERTED_S = 3600.0
"""How long a process waits while another one converts the same file."""


def folder_of(files: tuple[Path, ...], sha256: str, name: str) -> Path:
    """Return the folder of a GGUF model, after converting its ``files`` if no process has.

    Raises:
        ModelError: it cannot be converted; one line with the reason.
        ConfigError: the package ``gguf`` is missing.
    """
    reading.check_package()
    # Another transformers may build another tokenizer: the folder of one is not reused by another.
    key = digest(_VERSION, sha256, package_versions()["transformers"])
    place = cache_folder() / f"{files[0].stem}-{key}"
    if not place.is_dir():
        with lock(place.with_suffix(".lock"), place, wait_s=_CONVERTED_S):
            if not place.is_dir():
                _make(place, files, sha256, name)
    _log_once(name, place)
    return place


@cache
def _log_once(name: str, place: Path) -> None:
    made = read_json(place / PROVENANCE, "types")
    logger.warning(
        "%s: a GGUF file; its weights (%s) are used dequantised, from %s",
        name,
        ", ".join(made["types"]),
        place,
    )


def _make(place: Path, files: tuple[Path, ...], sha256: str, name: str) -> None:
    """Convert into a folder beside ``place``, and rename it: a cache holds whole folders alone."""
    from response_tuning.models.gguf import config, tokenizer, weights
    from response_tuning.models.loading import explained

    checkpoint = reading.read([*files])
    aside = place.with_name(f"{place.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed: this one has the lock
    aside.mkdir(parents=True)
    try:
        with explained(name, "cannot be converted"):
            settings = config.build(checkpoint, name)
            words = tokenizer.build(checkpoint, name)
            _check_space(aside, weights.bytes_needed(checkpoint), name)
            weights.save(checkpoint, settings, aside, name)
            settings.save_pretrained(aside)
            config.generation(checkpoint).save_pretrained(aside)
            words.save_pretrained(aside)
        types = sorted({tensor.type_name for tensor in checkpoint.tensors})
        write_json(aside / PROVENANCE, {"file": files[0].name, "sha256": sha256, "types": types})
        aside.rename(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _check_space(folder: Path, needed: int, name: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelError(
            f"{name}: dequantised, it takes {needed / 1e9:.1f} GB, and {folder.parent} has "
            f"{free / 1e9:.1f} GB left; set {CACHE} to a folder on another disk"
        )
