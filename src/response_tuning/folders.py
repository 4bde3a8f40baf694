"""Folders that commands write: made from which inputs, whole, in use by which process.

A command writes into a new folder, an empty one, or one that rtune made before, which a hidden file
marks. While it works there, it holds the lock of that file. The system drops a lock when its
process ends, however that ends, so that no stale lock is left behind.
"""

import glob
import json
import logging
import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from response_tuning import seals
from response_tuning.artifacts import SCHEMA, keeping, read_json, sync_folder, writable
from response_tuning.errors import ConfigError
from response_tuning.inputs import check_apart, inputs_of
from response_tuning.seals import Sums

logger = logging.getLogger(__name__)

_RECORD = re.compile(rb'\{"(item_id|verdict)":')
_PAGE = re.compile(rb"<!doctype html>", re.IGNORECASE)
MARK = ".rtune.json"
"""The file that a folder made by rtune holds; hidden, so that it is no part of a model's digest."""
RUN, CELL, OTHER = "run", "cell", "other"  # what a folder holds, as its mark says
STAGE_MANIFEST = "manifest.json"
"""In ``generate/`` and ``grade/`` of a cell: what their files were made from."""
_MADE_BEFORE = {
    "manifest.json": ("settings", "experiment"),
    "audit.json": ("dropped",),
    "study.json": ("answers",),
    "built.json": ("pretrain",),
}
"""Files of the folders that earlier versions made, which have no mark, and one key of each."""
_HOLDS = {RUN: "a run of a recipe", CELL: "a cell of a run", OTHER: "the output of another command"}
_ASK_AGAIN_S = 0.05
CLAIM_S = 60.0
"""How long a command waits for a folder that another one writes to, before its work begins."""
TURN_S = 600.0
"""How long it waits once it has done its work: longer than any report takes."""
_ASIDE = re.compile(r".+\.\d+\.partial")
"""How ``artifacts.written_aside`` names a file until it is whole."""


class FolderInUseError(ConfigError):
    """Another process uses a folder, or writes a file."""


@dataclass(frozen=True)
class FolderState:
    """What a folder holds, compared with what a command would make there."""

    recorded: bool
    """Whether the folder says what it was made from; False for a new one."""
    changed: Mapping[str, tuple[Any, Any]]
    """Input -> (what the folder was made from, what it would be made from now)."""
    flaw: str = ""
    """What is missing or damaged, the file first; looked for only if nothing has changed."""

    @property
    def whole(self) -> bool:
        """Whether the folder was made from exactly these inputs, and holds all of it."""
        return self.recorded and not self.changed and not self.flaw


def folder_state(
    folder: Path,
    recorded: Mapping[str, Any] | None,
    inputs: Mapping[str, Any],
    files: Sums | Collection[str] = (),
) -> FolderState:
    """Say whether ``folder`` was made from exactly ``inputs``, and whether it is whole.

    ``recorded`` is what its manifest says about its inputs, None without a manifest. A manifest
    also holds results, so that keys which are no inputs are not compared. ``files`` must exist;
    where their sums are given, they must have them too.
    """
    if recorded is None:
        return FolderState(recorded=False, changed={})
    changed = {
        name: (recorded.get(name), value)
        for name, value in inputs.items()
        if recorded.get(name) != value
    }
    if changed:  # nobody needs these files, and hashing weights takes minutes
        return FolderState(recorded=True, changed=changed)
    if isinstance(files, dict):
        return FolderState(recorded=True, changed={}, flaw=seals.flaw(folder, files))
    gone = [f"{name} is gone" for name in files if not (folder / name).is_file()]
    return FolderState(recorded=True, changed={}, flaw=gone[0] if gone else "")


@contextmanager
def locked(out: Path, *read: object, inside: bool = False) -> Iterator[None]:
    """Lock the folder ``out`` for this process, and refuse every write over what it reads.

    ``read`` are paths, or settings that name some. Under torchrun the first process holds the lock
    for all. ``inside`` a folder that rtune made, what ``out`` holds is not checked.

    Raises:
        FolderInUseError: another process uses ``out``.
        ConfigError: it holds files that rtune did not make, or overlaps with an input.
    """
    with _place(out, *read) as is_first:
        if not is_first:
            yield
            return
        made = _make(out)
        with ExitStack() if inside else _above(out), lock(out / MARK, out):
            try:
                _claim(out, CELL if inside else OTHER)
                _sweep(_own_files(out))
                yield
            finally:  # with the lock: another process may want the folder next
                _leave(out, made)


@contextmanager
def shared(out: Path, *read: object) -> Iterator[None]:
    """Claim the folder ``out`` for a run, and lock it only for that: processes share it.

    Each locks the folders inside that it works in (``free_folder``), and ``out`` itself while it
    writes there (``turn``).

    Raises:
        ConfigError: ``out`` holds files of others, overlaps with an input, or is in use.
    """
    with _place(out, *read) as is_first:
        made = _make(out) if is_first else []
        if is_first:
            with lock(out / MARK, out, wait_s=CLAIM_S):
                _claim(out, RUN)
                _sweep(_own_files(out))
        try:
            yield
        finally:
            if is_first and out.exists():
                with lock(out / MARK, out, wait_s=TURN_S):
                    _leave(out, made)


@contextmanager
def turn(out: Path) -> Iterator[None]:
    """Wait for the lock of a shared folder. Whoever holds it waits for no other lock.

    Raises:
        FolderInUseError: another process has it for longer than ``TURN_S``.
    """
    with lock(out / MARK, out, wait_s=TURN_S):
        _claim(out, RUN, inside=True)  # a command that was refused may have taken the mark away
        yield


@contextmanager
def free_folder(out: Path) -> Iterator[bool]:
    """Lock a folder inside one that is shared, unless another process has; yield whether so."""
    with ExitStack() as lock_of_folder:
        is_free = True
        try:
            lock_of_folder.enter_context(locked(out, inside=True))
        except FolderInUseError:
            is_free = False
        yield is_free


@contextmanager
def _place(out: Path, *read: object) -> Iterator[bool]:
    """Refuse a folder that overlaps with inputs; yield whether this process is the first.

    torchrun starts several, of which the others write only what the first one asks them for.
    """
    inputs = inputs_of(*read)
    check_apart(out, inputs)
    with keeping(inputs):
        yield os.environ.get("RANK", "0") == "0"


def _make(out: Path) -> list[Path]:
    """Make a folder, and return which it and those above it are new, the innermost first."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is no folder; choose another")
    made = _missing(out)
    out.mkdir(parents=True, exist_ok=True)
    return made


@contextmanager
def locked_file(out: Path, *read: object) -> Iterator[Path]:
    """Lock the file ``out`` for this process, and yield its journal, ``<out>.journal``.

    The journal is what is locked: ``out`` appears by a rename, which would replace a lock's file.

    Raises:
        ConfigError: another process writes ``out``, or it must not be written.
    """
    inputs = inputs_of(*read)
    with keeping(inputs):
        place = writable(out)
        if not place.name:
            raise ConfigError(f"{out}: is a folder; choose the name of a file")
        _check_ours(out, _RECORD)
        journal = writable(out.with_name(f"{out.name}.journal"))
        made = _missing(journal.parent)
        journal.parent.mkdir(parents=True, exist_ok=True)
        try:
            with _above(place), lock(journal, out):
                # Only under the lock: a partial file may belong to a process that is writing it.
                _sweep(place.parent.glob(f"{glob.escape(place.name)}.*.partial"))
                yield journal
        finally:
            _remove_empty(made)


@contextmanager
def page_at(page: Path | None, *read: object) -> Iterator[None]:
    """Refuse a page in place of what is read, or of a user's file, before any work is done.

    Raises:
        ConfigError: the page must not be written.
    """
    with keeping(inputs_of(*read)):
        if page is not None:
            writable(page)
            _check_ours(page, _PAGE)
        yield


def _check_ours(path: Path, beginning: re.Pattern[bytes]) -> None:
    """Refuse to replace a file that does not begin as ours do; ``beginning`` matches ours."""
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open("rb") as content:
        if not beginning.match(content.read(64)):
            raise ConfigError(
                f"{path}: holds something that rtune did not write; choose the name of a new file"
            )


def _claim(out: Path, kind: str, *, inside: bool = False) -> None:
    """Mark a folder as made by rtune, or refuse one that holds something else.

    The caller has the lock of the mark, so that it is written in place: under another inode, as
    after a rename, it would be another lock.
    """
    mark = out / MARK
    if (holds := _kind(out)) not in ("", kind):
        raise ConfigError(f"{out}: holds {_HOLDS[holds]}; choose another folder")
    if mark.exists() and mark.stat().st_size:
        return
    others = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    made_before = any(_made_before(out / name, keys) for name, keys in _MADE_BEFORE.items())
    if others and not (inside or kind == CELL or made_before):
        raise ConfigError(
            f"{out}: holds files that rtune did not make, such as {others[0]}; choose a new or an "
            "empty folder"
        )
    with mark.open("w", encoding="utf-8", newline="\n") as content:
        about = {"schema": SCHEMA, "made_by": "response-tuning", "kind": kind}
        content.write(json.dumps(about, indent=2) + "\n")
        content.flush()
        os.fsync(content.fileno())
    sync_folder(out)


def _kind(out: Path) -> str:
    """Return what a folder holds; empty if it is new, or if its mark is of an earlier version."""
    mark, kind = out / MARK, ""
    if mark.exists() and mark.stat().st_size:
        kind = str(read_json(mark, "made_by").get("kind", ""))  # refuses that of a later version
    if not kind and _made_before(out / "manifest.json", ("experiment",)):
        return RUN
    return kind if kind in _HOLDS else ""


def _made_before(path: Path, keys: tuple[str, ...]) -> bool:
    return path.is_file() and not read_json(path).keys().isdisjoint(keys)


def _own_files(out: Path) -> Iterator[Path]:
    """Yield the files below ``out``, except in folders with their own lock."""
    for folder, inside, names in os.walk(out):
        inside[:] = [name for name in inside if not Path(folder, name, MARK).exists()]
        yield from (Path(folder, name) for name in names)


def _sweep(paths: Iterable[Path]) -> None:
    """Delete the unfinished files of killed commands among ``paths``; the caller has the lock."""
    for path in paths:
        if _ASIDE.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def _leave(out: Path, made: Sequence[Path]) -> None:
    """Delete the mark and empty folders if the command left no file."""
    mark = out / MARK
    files = (Path(folder, name) for folder, _, names in os.walk(out) for name in names)
    if any(file != mark for file in files):
        return
    with suppress(OSError):
        mark.unlink(missing_ok=True)
        _remove_empty(sorted(out.rglob("*"), reverse=True))
        _remove_empty(made)


def _missing(folder: Path) -> list[Path]:
    """Return which of a folder and those above it do not exist, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):  # a folder with files, and so all above it, stay
        for folder in folders:
            folder.rmdir()


@contextmanager
def _above(out: Path) -> Iterator[None]:
    """Keep commands out of the folders around ``out``, but for that of a run, which is shared."""
    with ExitStack() as locks:
        for folder in out.resolve().parents:
            mark = folder / MARK
            if mark.is_file() and os.access(mark, os.W_OK) and _kind(folder) != RUN:
                locks.enter_context(lock(mark, folder, exclusive=False))
        yield


@contextmanager
def lock(path: Path, out: Path, *, wait_s: float = 0.0, exclusive: bool = True) -> Iterator[None]:
    """Lock the file ``path``, which is made for it and goes again if it stays empty.

    It is opened for writing, because NFS grants an exclusive lock on nothing else. On Windows, and
    on file systems without locks, nothing is locked.

    Raises:
        FolderInUseError: another process has the lock for longer than ``wait_s`` seconds; the
            message names ``out``.
    """
    if os.name != "posix":
        yield
        return
    made = not path.exists()
    descriptor = _locked_descriptor(path, out, wait_s, exclusive=exclusive)
    try:
        yield
    finally:
        if made and os.fstat(descriptor).st_size == 0:
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _locked_descriptor(path: Path, out: Path, wait_s: float, *, exclusive: bool) -> int:
    import fcntl

    how = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
    began = time.monotonic()
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # a command that made nothing has just removed the folder
            continue
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            # flock itself waits forever, and a command that trains in this folder takes days.
            if time.monotonic() - began < wait_s:
                time.sleep(_ASK_AGAIN_S)
                continue
            raise FolderInUseError(
                f"{out}: another rtune is using it; wait for it to end, or choose another place"
            ) from None
        except OSError as error:
            logger.warning(
                "%s: the file system has no locks (%s); run one command at a time there",
                out,
                error.strerror,
            )
            return descriptor
        # A command that made nothing deletes the file that it locked: then this is another file,
        # and its lock keeps nobody out.
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
