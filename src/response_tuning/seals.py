"""Seals: the last file written into a folder, with the size and the SHA-256 of the others.

A kill leaves a folder without a seal. Before a sealed folder is used again, it is verified: sizes
first, which is quick, then digests, several files at once.
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
"""Number of checkpoints: if the newest is damaged, the one before it is left."""
_HASHED_AT_ONCE = 4
"""Number of files: one core hashes 1 to 2 GB/s, and few disks read faster than four cores hash."""
_PROBE = bytes(2**20)
"""Bytes to write as a test of whether a disk has room."""
Sums = dict[str, dict[str, Any]]
"""Name of a file in a folder -> its ``bytes`` and ``sha256``."""


def sums(folder: Path, names: Sequence[str] | None = None) -> Sums:
    """Flush the files of ``folder``, or only ``names``, to the disk; return sizes and digests."""
    if names is None:
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        names = [path.relative_to(folder).as_posix() for path in files]
    names = [name for name in names if name != SEAL]
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
        return dict(zip(names, pool.map(lambda name: _sum(folder / name), names), strict=True))


def seal(folder: Path, names: Sequence[str] | None = None, **about: str) -> None:
    """Flush ``folder`` to the disk, then record that it is whole.

    A seal is written in place, because a digest of its own shows whether it is complete.
    """
    content = {**about, "files": sums(folder, names)}
    with (folder / SEAL).open("w", encoding="utf-8") as out:
        json.dump(content | {"digest": _digest(content)}, out, indent=2)
        out.flush()
        os.fsync(out.fileno())
    sync_folder(folder)


def flaw(folder: Path, recorded: Sums) -> str:
    """Return what is wrong with a file of ``folder``, its name first; empty if nothing is."""
    for name, expected in recorded.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is gone"
        if (size := path.stat().st_size) != expected["bytes"]:
            return f"{name} has {size:,} bytes and was written with {expected['bytes']:,}"
    with ThreadPoolExecutor(_HASHED_AT_ONCE) as pool:
        now = pool.map(lambda name: _sum(folder / name), recorded)
        for name, measured in zip(recorded, now, strict=True):
            if measured != recorded[name]:
                return f"{name} is no longer what was written"
    return ""


def flaw_of_sealed(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return what is wrong with a sealed folder, empty if nothing is, and its seal's content."""
    wrong, content = read_seal(folder)
    return wrong or flaw(folder, content["files"]), content


def read_seal(folder: Path) -> tuple[str, dict[str, Any]]:
    """Return what is wrong with a seal, empty if nothing is, and its content; no other file."""
    try:
        content = read_json(folder / SEAL)
    except DataError:
        return f"{SEAL} is not a seal: damaged, or of an older version", {}
    if content.pop("digest", None) != _digest(content):
        return f"{SEAL} is no longer what was written", {}
    return "", content


def discard(folder: Path) -> None:
    """Delete a sealed folder, the seal first: after a kill, what is left counts as unfinished."""
    (folder / SEAL).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def saving(folder: Path) -> Iterator[None]:
    """Turn a library's error about writing into ``folder`` into one line, and delete the folder.

    Raises:
        OSError: the disk is full, or refuses to write for another reason.
    """
    try:
        yield
    except Exception as error:
        cause = _cause(error, folder)
        shutil.rmtree(folder, ignore_errors=True)
        if cause is None:
            raise
        raise cause from error


def apply_umask(folder: Path) -> None:
    """Let others read the files of ``folder`` as the umask says; safetensors allows its owner."""
    umask = os.umask(0o077)
    os.umask(umask)
    for file in folder.iterdir():
        file.chmod(0o666 & ~umask)


def newest_checkpoint(folder: Path, run: str) -> Path | None:
    """Return the newest intact checkpoint; delete damaged and unfinished ones.

    Raises:
        ConfigError: it belongs to another run than ``run``.
    """
    flaws: list[str] = []
    good: Path | None = None
    for checkpoint in _newest_first(folder):
        if not (checkpoint / SEAL).exists():
            shutil.rmtree(checkpoint)  # a kill left it unfinished
            continue
        if good is not None:
            continue
        damage, about = flaw_of_sealed(checkpoint)
        if damage:
            flaws.append(f"{checkpoint}: {damage}")
            discard(checkpoint)
        elif about.get("run") != run:
            raise ConfigError(
                f"{checkpoint} is of another run; choose another --out, or delete {folder}"
            )
        else:
            good = checkpoint
    where = f"going on from {good.name}" if good else "no other checkpoint, so starting over"
    for damaged in flaws:
        logger.warning("%s; %s", damaged, where)
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
    """Return the system's error; torch and safetensors hide it in errors of their own."""
    if isinstance(error, OSError):
        if error.errno is None or error.filename is not None:
            return error
        return OSError(error.errno, error.strerror, str(folder))
    if number := re.search(r"os error (\d+)", str(error)):  # how Rust's standard library words it
        code = int(number[1])
        return OSError(code, os.strerror(code), str(folder))
    probe = folder / "probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with probe.open("wb", buffering=0) as out:
            out.write(_PROBE)  # may be cut short without an error; the next write then raises it
            out.write(_PROBE)
    except OSError as refused:
        return OSError(refused.errno, refused.strerror, str(folder))
    return None


def _sum(path: Path) -> dict[str, Any]:
    with path.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        if os.name == "posix":  # elsewhere a file that is only read cannot be flushed
            os.fsync(content.fileno())
        return {"bytes": content.tell(), "sha256": sha256}


def _digest(content: dict[str, Any]) -> str:
    return digest(json.dumps(content, sort_keys=True))
