"""Names inside and beside a run's folder, and how a model appears there whole."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from response_tuning import seals
from response_tuning.artifacts import sync_folder
from response_tuning.errors import EngineError, ResponseTuningError

MANIFEST = "manifest.json"
"""Its status is ``running`` until everything else is in place, then ``finished``."""
METRICS_FILE = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
TOKENS = "tokens"
"""Encoded examples, beside the data; deleted with the checkpoints when the run has finished."""
_TRAINING = ".training"
PARTIAL = ".partial"
"""The model folder while it is written."""
CARD = "README.md"

_WEIGHTS = ("adapter_config.json", "adapter_model.safetensors", "model*.safetensors*")


def training_folder(out: Path) -> Path:
    """Return the folder of a single run's data and tokens: ``OUT.training``, beside the model.

    People share the folder of a model, so it holds no training row. Earlier versions wrote both
    into the model's folder; such a run goes on there.
    """
    if any((out / name).exists() for name in ("data", "source", TOKENS)):
        return out
    named = out if out.name not in ("", "..") else out.resolve()
    return named.with_name(named.name + _TRAINING)


def model_of(training: Path) -> Path:
    """Return the folder of the model whose data and tokens are in ``training``."""
    named = training if training.name not in ("", "..") else training.resolve()
    return named.with_name(named.name.removesuffix(_TRAINING))


def forget(out: Path, data: Path) -> None:
    """Delete what a run would resume from, and the manifest that marks it as finished.

    The manifest goes last: without it, nothing would tell whose checkpoints these are.
    """
    tidy(out, data)
    (out / METRICS_FILE).unlink(missing_ok=True)
    (out / MANIFEST).unlink(missing_ok=True)


def tidy(out: Path, data: Path) -> None:
    """Delete what only an unfinished run needs."""
    # Earlier versions encoded into the model's folder.
    for folder in (out / CHECKPOINTS, out / PARTIAL, out / TOKENS, data.with_name(TOKENS)):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def nothing_of_a_refused_run(data: Path, out: Path) -> Iterator[None]:
    """Delete the prepared data if the run in ``out`` is refused before its manifest is written.

    An engine that does not answer refuses nothing: the same command tries again.
    """
    prepared_before = data.exists()
    try:
        yield
    except EngineError:
        raise
    except ResponseTuningError:
        if not prepared_before and not (out / MANIFEST).exists():
            forget(out, data)
            shutil.rmtree(data, ignore_errors=True)
        raise


def move_into(source: Path, target: Path) -> None:
    """Move every file of ``source`` into ``target``, and remove ``source``."""
    seals.apply_umask(source)
    for file in source.iterdir():
        file.replace(target / file.name)
    sync_folder(target)
    source.rmdir()


def remove_other_weights(source: Path, target: Path) -> None:
    """Delete weights in ``target`` that ``source`` does not replace; an earlier run left them."""
    for pattern in _WEIGHTS:
        for file in target.glob(pattern):
            if not (source / file.name).exists():
                file.unlink()
