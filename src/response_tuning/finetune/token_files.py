"""Tokens made ahead of the runs that train on them, in a folder or at an address.

``rtune data tokenize`` leaves a store there (see ``store``), whose seal says what decided its
content. A run compares that with its own settings and examples, so that it never trains on tokens
of anything else. Tokens at an address are fetched once, into the cache of the machine.
"""

import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from response_tuning import seals
from response_tuning.addresses import download, holds, is_address
from response_tuning.artifacts import digest, package_versions
from response_tuning.configs import FinetuneConfig
from response_tuning.errors import DataError
from response_tuning.finetune import base
from response_tuning.finetune.example_file import ExampleFile
from response_tuning.folders import lock
from response_tuning.models.files import cache_folder
from response_tuning.templates import Chat

logger = logging.getLogger(__name__)

AUDIT_FILE = "audit.json"
"""What became of the rows of the source, beside the files of the store."""
ANY_SEED = "any"
"""Recorded where no row took another example, which alone a seed would draw."""
FETCH_S = 3600.0
"""How long a process waits for another one that fetches the same tokens."""
_SETTINGS = ("objective", "objective_settings", "twins", "train_on_final_newline", "seed")
_PACKAGES = ("response-tuning", "transformers", "tokenizers")
_IN_WORDS = {
    "examples": "they were made of other examples than this run's",
    "tokenizer": "they were made with another tokenizer, or for a model with other tokens",
    "template": "they were made with another chat template",
    "format": "another version, or another kind of machine, made them",
}
_AGAIN = "make tokens for this run: rtune data tokenize"


def names() -> list[str]:
    """Return the names of the files that belong to tokens, but for the seal."""
    from response_tuning.finetune import store

    return [store.IDS_FILE, store.ROWS_FILE, store.COUNTS_FILE, AUDIT_FILE]


def identity(config: FinetuneConfig, chat: Chat) -> dict[str, str]:
    """Return all that decides tokens but for the examples, as a seal holds it."""
    from response_tuning.finetune import store

    settings = config.model_dump(mode="json", include={*_SETTINGS})
    settings["window"] = base.fitted_window(config)
    versions = package_versions()
    plugins = [name for name in versions if name.startswith("plug-in ")]
    return {
        "format": f"{store.VERSION} {sys.byteorder}",
        "tokenizer": base.tokenizer_digest(config, chat),
        "template": chat.digest,
        **{name: json.dumps(value, sort_keys=True) for name, value in settings.items()},
        "packages": ", ".join(f"{name} {versions[name]}" for name in (*_PACKAGES, *plugins)),
    }


def difference(recorded: Mapping[str, Any], own: Mapping[str, str]) -> str:
    """Return the first thing that tells tokens from those of a run; empty if nothing does."""
    for name, value in own.items():
        before = recorded.get(name)
        if name == "packages" or before == value or (name == "seed" and before == ANY_SEED):
            continue
        if name in _IN_WORDS:
            return _IN_WORDS[name]
        return f"they were made with {name} {before}, and this run has {value}"
    return ""


def check(tokens: str, config: FinetuneConfig, chat: Chat) -> None:
    """Refuse tokens of other settings; only their seal is read.

    Raises:
        DataError: they were made with other settings, or are not there.
    """
    _compare(tokens, seal_of(tokens), identity(config, chat))


def opened(tokens: str, config: FinetuneConfig, chat: Chat, examples: ExampleFile) -> Path:
    """Return the folder of tokens that fit a run, on this machine.

    Raises:
        DataError: they are of another run, damaged, or not there.
    """
    about = seal_of(tokens)
    own = identity(config, chat)
    _compare(tokens, about, own | {"examples": examples.sha256})
    if about["packages"] != own["packages"]:
        logger.warning(
            "%s: made with other packages, which may have made other tokens: %s, and here %s",
            tokens,
            about["packages"],
            own["packages"],
        )
    if is_address(tokens):
        return _fetched(tokens, about)
    if flaw := seals.flaw(Path(tokens), about["files"]):
        raise DataError(f"{tokens}/{flaw}; delete the folder and {_AGAIN}")
    return Path(tokens)


def _compare(tokens: str, about: Mapping[str, Any], own: Mapping[str, str]) -> None:
    if found := difference(about, own):
        raise DataError(f"{tokens}: {found}; give the same settings and data, or {_AGAIN}")


def seal_of(tokens: str) -> dict[str, Any]:
    """Return what the seal of tokens says.

    Raises:
        DataError: there is none that is whole.
    """
    if not is_address(tokens):
        return _read_seal(tokens, Path(tokens))
    with tempfile.TemporaryDirectory() as folder:
        if holds(tokens, seals.SEAL):
            download(tokens, Path(folder), [seals.SEAL])
        return _read_seal(tokens, Path(folder))


def _read_seal(tokens: str, folder: Path) -> dict[str, Any]:
    if not (folder / seals.SEAL).is_file():
        raise DataError(
            f"{tokens}: there are no tokens, or they are not whole yet; make them: rtune data "
            f"tokenize SOURCE --base-model BASE --out {tokens}"
        )
    flaw, about = seals.read_seal(folder)
    if flaw:
        raise DataError(f"{tokens}/{flaw}; delete the tokens there and {_AGAIN}")
    if sorted(about["files"]) != sorted(names()):
        raise DataError(f"{tokens}: holds something else than tokens; {_AGAIN}")
    return about


def _fetched(address: str, about: Mapping[str, Any]) -> Path:
    """Return the copy of tokens in the cache; fetch them if it is missing or damaged."""
    name = digest(json.dumps(about, sort_keys=True))
    folder = cache_folder() / "tokens" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock(folder.with_suffix(".lock"), folder, wait_s=FETCH_S):
        if folder.exists() and (flaw := seals.flaw(folder, about["files"])):
            logger.warning("%s/%s; the tokens are fetched again", folder, flaw)
            shutil.rmtree(folder)
        if not folder.exists():
            for left in folder.parent.glob(f"{name}.*.partial"):  # by a kill
                shutil.rmtree(left)
            partial = Path(tempfile.mkdtemp(".partial", f"{name}.", folder.parent))
            with seals.saving(partial):
                download(address, partial, names())
                if flaw := seals.flaw(partial, about["files"]):
                    raise DataError(f"{address}: {flaw}; delete the tokens there and {_AGAIN}")
                partial.replace(folder)
    return folder
