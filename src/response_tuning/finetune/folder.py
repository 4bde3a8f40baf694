"""Names inside a run's folder, and how a model gets there whole."""

import shutil
from pathlib import Path

MANIFEST = "manifest.json"
"""Says ``running`` until everything else is in place, then ``finished``."""
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
TOKENS = "tokens"
"""Encoded examples, kept as the checkpoints are: until the run has finished."""
COMPLETE = "complete"
"""The file that a checkpoint gets last, when all of it is on disk."""


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint that is whole, and delete those that a kill left unfinished."""
    whole = []
    for checkpoint in folder.glob("checkpoint-*"):
        if (checkpoint / COMPLETE).exists():
            whole.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def forget(out: Path) -> None:
    """Delete what a run would resume from, or be known as finished by."""
    (out / MANIFEST).unlink(missing_ok=True)
    (out / METRICS).unlink(missing_ok=True)
    for name in (CHECKPOINTS, TOKENS):
        shutil.rmtree(out / name, ignore_errors=True)


def move_into(source: Path, target: Path) -> None:
    """Move every file of ``source`` into ``target``, and remove ``source``."""
    for file in source.iterdir():
        file.replace(target / file.name)
    source.rmdir()
