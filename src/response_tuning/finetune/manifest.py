"""``manifest.json``: what a run is, whether it has finished, and what it left."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from response_tuning import seals
from response_tuning.artifacts import digest, file_digest, package_versions, read_json
from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.finetune.encoding import UNLIKE_TWINS
from response_tuning.finetune.run_folder import CARD, MANIFEST
from response_tuning.folders import folder_state
from response_tuning.models.location import ModelFolder

logger = logging.getLogger(__name__)

RUNNING, FINISHED, MERGING = "running", "finished", "merging"
"""``merging``: finished, and its adapter is being merged into the base."""

# Settings that change neither the examples, nor the steps, nor the weights that come out (but for
# rounding, and for what dropout draws, where other tokens go through the model together).
FREE = {"save_steps", "report_to", "merge", "merge_into"}
FREE |= {"tokens_per_micro_batch", "gradient_checkpointing", "shard", "tokens"}
_KEYS = {"status": str, "settings": dict, "base": str, "examples_sha256": str}


def manifest_of(config: FinetuneConfig, identity: str, data: Path) -> dict[str, Any]:
    """Return what a run is, before it has begun."""
    audit = read_json(data / "audit.json", "rows", "rows_kept", "examples", "dropped")
    return {
        "status": RUNNING,
        "settings": config.model_dump(mode="json"),
        "base": identity,
        "examples_sha256": file_digest(data / "examples.jsonl"),
        "data": audit,
        "packages": package_versions(),
    }


def matched(config: FinetuneConfig, remarks: Mapping[str, int]) -> str:
    """Return what this run shares with its twins; ``remarks`` are the remarks on its rows."""
    if not config.twins:
        return "nothing: this arm was cut and filtered by its own objective alone"
    others = " and ".join(config.twins)
    if UNLIKE_TWINS in remarks:
        return f"examples, order and steps, with {others}; not the tokens that carry loss"
    return f"examples, response tokens, supervised tokens, order and steps, with {others}"


def run_of(manifest: dict[str, Any]) -> str:
    """Return what the checkpoints of a run are known by."""
    settings = {key: value for key, value in manifest["settings"].items() if key not in FREE}
    parts = [settings, manifest["base"], manifest["examples_sha256"]]
    return digest(json.dumps(parts, sort_keys=True))


def read_manifest(out: Path) -> dict[str, Any]:
    """Read the manifest of a run.

    Raises:
        ConfigError: it is that of a run of a recipe.
        DataError: it is damaged, or of something else.
    """
    path = out / MANIFEST
    hint = "delete it, and the same command goes on from a checkpoint, or tunes again"
    try:
        found = read_json(path)
    except DataError as error:
        raise DataError(f"{error}; {hint}") from error
    if "experiment" in found:
        raise ConfigError(f"{out}: holds a run of a recipe; choose another --out")
    for key, kind in _KEYS.items():
        if not isinstance(found.get(key), kind):
            raise DataError(
                f"{path}: holds no '{key}', so it is of an older version, of another command, or "
                f"damaged; choose another --out, or {hint}"
            )
    return found


def check_manifest(out: Path) -> None:
    """Refuse a folder whose manifest is not that of a tuned model, before data are prepared.

    Raises:
        ConfigError: it is that of a run of a recipe.
        DataError: it is damaged, or of something else.
    """
    if (out / MANIFEST).exists():
        read_manifest(out)


def known_as(base: ModelFolder, out: Path) -> str:
    """Return the identity of the base, in the words of an earlier version that began ``out``."""
    if (out / MANIFEST).exists():
        recorded: str = read_manifest(out)["base"]
        if base.is_known_as(recorded):
            return recorded
    return base.identity


def is_finished(out: Path, manifest: dict[str, Any]) -> bool:
    """Return whether ``out`` already holds this run, finished and as it was left.

    Raises:
        ConfigError: it holds a different one.
        DataError: its manifest, or a file of its model, is no longer what was written.
    """
    if not (out / MANIFEST).exists():
        return False
    recorded = read_manifest(out)
    # Only a finished run has digests of its weights; a run in progress still writes them.
    files = recorded.get("files") if recorded["status"] == FINISHED else None
    state = folder_state(
        out, _inputs(recorded), _inputs(manifest), files if isinstance(files, dict) else ()
    )
    if state.changed:
        key, (before, now) = next(iter(state.changed.items()))
        longer = key in ("epochs", "max_steps") and recorded["status"] == FINISHED
        extend = f", extend it with --continue-from {out}" if longer else ""
        raise ConfigError(
            f"{out} holds another run: {key} was {before!r}, now {now!r}; choose another --out"
            f"{extend}, or delete the folder"
        )
    if recorded["status"] == RUNNING:
        _warn_of_other_packages(out, recorded, manifest)
    if recorded["status"] == FINISHED:
        check_model(out, files, state.flaw)
    return recorded["status"] in (FINISHED, MERGING)


def _inputs(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the weights of a run."""
    settings = {key: value for key, value in manifest["settings"].items() if key not in FREE}
    return settings | {key: manifest[key] for key in ("base", "examples_sha256")}


def model_files(folder: Path) -> seals.Sums:
    """Measure what makes a model: all that the run leaves beside the card, which people edit."""
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != CARD)
    return seals.sums(folder, names)


def check_model(out: Path, files: Any, flaw: str) -> None:  # noqa: ANN401 - of a manifest
    """Refuse a finished model that is no longer what was written.

    Raises:
        DataError: it has a ``flaw``, or its manifest has no digests and there are no weights.
    """
    again = f"put the file back, or delete {out / MANIFEST} to tune again"
    if flaw:
        raise DataError(f"{out}: the run has finished, but {flaw}; {again}")
    if isinstance(files, dict):
        return
    if any(out.glob("*.safetensors")):
        logger.warning(
            "%s: its manifest is of an older version, without digests; the model is not verified",
            out,
        )
    else:
        raise DataError(f"{out}: the run has finished, but there are no weights; {again}")


def _warn_of_other_packages(out: Path, recorded: dict[str, Any], manifest: dict[str, Any]) -> None:
    before, now = recorded.get("packages"), manifest["packages"]
    before = before if isinstance(before, dict) else {}
    changed = [
        f"{name} {before.get(name, 'unknown')} -> {now.get(name, 'not installed')}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
    if changed:
        logger.warning(
            "%s: the run began with other packages, and may end in other weights: %s",
            out,
            ", ".join(changed),
        )
        manifest["began_with"] = recorded.get("began_with", before)
