"""Seals: the last file of a folder, with the size and the SHA-256 of the others.

A folder without one was left unfinished by a kill. What is relied on later is checked against its
seal before it is read: sizes first, then digests, several files at once.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from response_tuning.artifacts import digest, read_json, sync_folder
from response_tuning.errors import ConfigError, DataError

logger = logging.getLogger(__name__)

SEAL = "complete"
KEPT = 2
"""Checkpoints, so that a whole one is left if the newest is damaged."""
_HASHED_AT_ONCE = 4
"""Files; a disk that is faster than one core's SHA-256 (1 to 2 GB/s) is seldom faster than four."""
_PROBE = bytes(2**20)
"""What is written to find out whether a disk takes anything at all."""
Sums = dict[str, dict[str, Any]]
"""Name of a file in a folder -> its ``bytes`` and ``sha256``."""


def sums(folder: Path, names: Sequence[str] | None = None) -> Sums:
    """Flush the files of ``folder`` to the disk and measure them; all of them, or ``names``."""
    if names is None:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [path.relative_to(folder).as_posix() for path in files]
    names = [name for name in names if name != SEAL]
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
        return dict(zip(names, pool.map(lambda name: _sum(folder / name), names), strict=True))


def seal(folder: Path, names: Sequence[str] | None = None, **about: str) -> None:
    """Say that ``folder`` is whole, once all of it is on the disk.

    A seal is written in place: its own digest says whether all of it is there.
    """
    content = {**about, "files": sums(folder, names)}
    with (folder / SEAL).open("w", encoding="utf-8") as out:
        json.dump(content | {"digest": _digest(content)}, out, indent=2)
        out.flush()
        os.fsync(out.fileno())
    sync_folder(folder)


def flaw(folder: Path, recorded: Sums) -> str:
    """Return what is wrong with a file of ``folder``, its name first; empty if nothing is."""
    for name, found in recorded.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is gone"
        if (size := path.stat().st_size) != found["bytes"]:
            return f"{name} has {size:,} bytes and was written with {found['bytes']:,}"
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
        now = pool.map(lambda name: _sum(folder / name), recorded)
        for name, measured in zip(recorded, now, strict=True):
            if measured != recorded[name]:
                return f"{name} is no longer what was written"
    return ""


def flaw_of_sealed(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return what is wrong with a sealed folder, empty if nothing is, and what its seal says."""
    try:
        content = read_json(folder / SEAL)
    except DataError:
        return f"{SEAL} is not a seal: damaged, or of an older version", {}
    if content.pop("digest", None) != _digest(content):
        return f"{SEAL} is no longer what was written", {}
    return flaw(folder, content["files"]), content


def discard(folder: Path) -> None:
    """Delete a sealed folder, the seal first: a kill leaves an unfinished one, not a broken one."""
    (folder / SEAL).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def saving(folder: Path) -> Iterator[None]:
    """Say in one line why a library could not write into ``folder``, and leave nothing of it.

    Raises:
        OSError: the disk is full, or takes no more for another reason.
    """
    try:
        yield
    except Exception as error:
        cause = _cause(error, folder)
        shutil.rmtree(folder, ignore_errors=True)
        if cause is None:
            raise
        raise cause from error


def newest_checkpoint(folder: Path, run: str) -> Path | None:
    """Return the newest checkpoint that is as it was written; delete what cannot be gone on from.

    Raises:
        ConfigError: it is one of another run than ``run``.
    """
    flaws: list[str] = []
    good: Path | None = None
    for checkpoint in _newest_first(folder):
        if not (checkpoint / SEAL).exists():
            shutil.rmtree(checkpoint)  # a kill came while it was written
            continue
        if good is not None:
            continue
        found, about = flaw_of_sealed(checkpoint)
        if found:
            flaws.append(f"{checkpoint}: {found}")
            discard(checkpoint)
        elif about.get("run") != run:
            raise ConfigError(
                f"{checkpoint} is of another run; choose another --out, or delete {folder}"
            )
        else:
            good = checkpoint
    where = f"going on from {good.name}" if good else "no other checkpoint, so starting over"
    for found in flaws:
        logger.warning("%s; %s", found, where)
    return good


def keep_newest(folder: Path) -> None:
    """Delete all checkpoints of ``folder`` but the newest two."""
    for old in _newest_first(folder)[KEPT:]:
        discard(old)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=_step, reverse=True)


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _cause(error: Exception, folder: Path) -> OSError | None:
    """Return what the disk said; torch and safetensors raise errors of their own for it."""
    if isinstance(error, OSError):
        if error.errno is None or error.filename is not None:
            return error
        return OSError(error.errno, error.strerror, str(folder))
    if found := re.search(r"os error (\d+)", str(error)):  # as Rust says it
        code = int(found[1])
        return OSError(code, os.strerror(code), str(folder))
    probe = folder / "probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with probe.open("wb", buffering=0) as out:
            out.write(_PROBE)  # a disk with room for a part of it says so at the next write
            out.write(_PROBE)
    except OSError as refused:
        return OSError(refused.errno, refused.strerror, str(folder))
    return None


def _sum(path: Path) -> dict[str, Any]:
    with path.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
        if os.name == "posix":  # elsewhere a file that is only read cannot be flushed
            os.fsync(content.fileno())
        return {"bytes": content.tell(), "sha256": found}


def _digest(content: dict[str, Any]) -> str:
    return digest(json.dumps(content, sort_keys=True))
