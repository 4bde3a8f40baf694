"""``rtune finetune --continue-from RUN``: a finished run's settings and weights as the start."""

from pathlib import Path
from typing import Any

from response_tuning.artifacts import read_json
from response_tuning.errors import ConfigError
from response_tuning.recipe import Settings
from response_tuning.workflows.data import DATA

_OF_THE_RUN = ("random_init", "merge", "merge_into", "continue_from")
"""Settings of the earlier run that are not taken over: they are about its own weights."""


def settings_of(run: Path) -> dict[str, Settings]:
    """Return the settings that a run goes on with: those of ``run``, and where its weights are.

    Raises:
        ConfigError: ``run`` is no finished run of ``rtune finetune``.
    """
    from response_tuning.finetune.manifest import FINISHED, read_manifest
    from response_tuning.finetune.run_folder import MANIFEST, training_folder
    from response_tuning.models import files

    if not (run / MANIFEST).exists():
        raise ConfigError(f"--continue-from {run}: no run: it has no {MANIFEST}")
    manifest = read_manifest(run)
    if manifest["status"] != FINISHED:
        raise ConfigError(
            f"--continue-from {run}: the run has not finished (status {manifest['status']}); the "
            "command that began it goes on with it"
        )
    tuning = {key: v for key, v in manifest["settings"].items() if key not in _OF_THE_RUN}
    tuning["continue_from"] = str(run)
    if files.kind(run) != files.ADAPTER_CONFIG:  # a whole model is the base of what follows
        tuning |= {"base_model": str(run), "base_revision": "main"}
    data: dict[str, Any] = {}
    for folder in (training_folder(run) / DATA, run.parent / DATA):
        if (folder / "audit.json").exists():
            data = read_json(folder / "audit.json").get("config", {})
            break
    return {"finetune": tuning, "data": data}
