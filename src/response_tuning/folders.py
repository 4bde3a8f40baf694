"""What a command may write: a place of its own, that no other command uses, and never its inputs.

A folder is new, empty, or one that rtune made before, which a hidden file says. The system drops a
lock with the process, however that ends, so that none is left behind.
"""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pydantic import BaseModel

from response_tuning.artifacts import keeping, read_json, writable, write_json
from response_tuning.errors import ConfigError

_RECORD = re.compile(rb'\{"(item_id|verdict)":')
_PAGE = re.compile(rb"<!doctype html>", re.IGNORECASE)
MARK = ".rtune.json"
"""The file that a folder made by rtune holds; hidden, so that it is no part of a model's digest."""
_MADE_BEFORE = {
    "manifest.json": ("settings", "experiment"),
    "audit.json": ("dropped",),
    "study.json": ("answers",),
    "built.json": ("pretrain",),
}
"""Files of the folders that earlier versions made, which have no mark, and one key of each."""
_ASIDE = re.compile(r".+\.\d+\.partial")
"""How ``artifacts.written_aside`` names a file until it is whole."""
_PATHS = frozenset(
    [
        *("source", "path", "base_model", "model", "template", "table", "tokenizer", "data"),
        *("paths", "reference", "difficulties", "against", "checked", "labels"),
    ]
)
"""Settings that may name a file or a folder; ``main`` and ``train`` are no paths elsewhere."""


@contextmanager
def locked(out: Path, *read: object) -> Iterator[None]:
    """Have the folder ``out`` to oneself, and keep what is read from being written over.

    ``read`` are paths, or settings that name some. Under torchrun the first process holds the lock
    for all. Windows, and file systems without locks, have none.

    Raises:
        ConfigError: another process is at work in ``out``, it holds files that rtune did not make,
            or it overlaps with an input.
    """
    inputs = inputs_of(*read)
    _check_apart(out, inputs)
    if os.environ.get("RANK", "0") != "0":
        with keeping(inputs):
            yield
        return
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is no folder; choose another")
    made = _missing(out)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with lock(out, out), keeping(inputs):
            _claim(out)
            _sweep(out.rglob("*.partial"))
            yield
    finally:
        _leave(out, made)


@contextmanager
def locked_file(out: Path, *read: object) -> Iterator[Path]:
    """Have the file ``out`` to oneself, and yield its journal, which is ``<out>.journal``.

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
            with lock(journal, out):
                _sweep(place.parent.glob(f"{glob.escape(place.name)}.*.partial"))
                yield journal
        finally:
            _remove_empty(made)


@contextmanager
def page_at(page: Path | None, *read: object) -> Iterator[None]:
    """Keep what is read from being written over by a page, before any work is done for it.

    Raises:
        ConfigError: the page must not be written.
    """
    with keeping(inputs_of(*read)):
        if page is not None:
            writable(page)
            _check_ours(page, _PAGE)
        yield


def _check_ours(path: Path, beginning: re.Pattern[bytes]) -> None:
    """Refuse to replace a file that does not begin as what is written there."""
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open("rb") as content:
        if not beginning.match(content.read(64)):
            raise ConfigError(
                f"{path}: holds something that rtune did not write; choose the name of a new file"
            )


def inputs_of(*read: object) -> list[Path]:
    """Return the files and folders that paths, and settings that name some, stand for.

    The sub-folders of a folder of benchmark copies (``data``) are inputs, and not the folder
    itself: answers may be written beside them.
    """
    found: list[Path] = []
    for each in read:
        if isinstance(each, Path):
            found += [each] if each.exists() else []
        elif isinstance(each, BaseModel):
            found += _named({name: getattr(each, name) for name in type(each).model_fields})
        elif isinstance(each, Mapping):
            found += _named(each)
    return found


def _named(settings: Mapping[str, object]) -> list[Path]:
    found = []
    for name, value in settings.items():
        if isinstance(value, BaseModel) or (isinstance(value, Mapping) and name != "paths"):
            found += inputs_of(value)
        elif name in _PATHS:
            values = value.values() if isinstance(value, Mapping) else value
            several = values if isinstance(values, list | tuple) else [values]
            paths = [path for path in map(_existing, several) if path is not None]
            found += (
                [child for path in paths for child in _copies(path)] if name == "data" else paths
            )
    return found


def _existing(value: object) -> Path | None:
    if not isinstance(value, str | Path) or not str(value):
        return None
    path = Path(value)
    try:
        return path if path.exists() else None
    except (OSError, ValueError):  # too long for a path, or with a null byte in it
        return None


def _copies(folder: Path) -> list[Path]:
    return [child for child in folder.iterdir() if child.is_dir()] if folder.is_dir() else [folder]


def _check_apart(out: Path, inputs: list[Path]) -> None:
    place = out.resolve()
    for path in inputs:
        read = path.resolve()
        if place == read or place in read.parents:
            raise ConfigError(f"{out}: {path} is read from it; choose another folder")
        if read in place.parents:
            raise ConfigError(
                f"{out}: lies in {path}, which is read, and would change it; choose another folder"
            )


def _claim(out: Path) -> None:
    """Mark a folder as made by rtune, or refuse one that holds something else."""
    if (out / MARK).exists():
        read_json(out / MARK, "made_by")  # refuses that of a later version
        return
    others = sorted(path.name for path in out.iterdir() if not path.name.startswith("."))
    if others and not any(_made_before(out / name, keys) for name, keys in _MADE_BEFORE.items()):
        raise ConfigError(
            f"{out}: holds files that rtune did not make, such as {others[0]}; choose a new or an "
            "empty folder"
        )
    write_json(out / MARK, {"made_by": "response-tuning"})


def _made_before(path: Path, keys: tuple[str, ...]) -> bool:
    if not path.is_file():
        return False
    content = read_json(path)
    return any(key in content for key in keys)


def _sweep(found: Iterable[Path]) -> None:
    """Delete what killed commands were writing aside; the caller has the place to itself."""
    for path in found:
        if _ASIDE.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def _leave(out: Path, made: Sequence[Path]) -> None:
    """Take the mark, and empty folders, away again if nothing came of the command."""
    mark = out / MARK
    if any(path != mark and not path.is_dir() for path in out.rglob("*")):
        return
    with suppress(OSError):
        mark.unlink(missing_ok=True)
        _remove_empty(sorted(out.rglob("*"), reverse=True))
        _remove_empty(made)


def _missing(folder: Path) -> list[Path]:
    """Return which of a folder and those above it are not there, the innermost first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):  # one that holds something, and so all above it, are kept
        for folder in folders:
            folder.rmdir()


@contextmanager
def lock(path: Path, out: Path) -> Iterator[None]:
    """Lock ``path``: a folder, or a file that is made for it and goes again if it stays empty.

    Raises:
        ConfigError: another process has the lock; the message names ``out``.
    """
    if os.name != "posix":
        yield
        return
    import fcntl

    made = not path.exists()
    held = _opened(path)
    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{out}: another rtune is at work in it; wait for it to end, or choose another "
                "place"
            ) from None
        except OSError:
            pass  # no locks here
        yield
    finally:
        if made and not path.is_dir() and os.fstat(held).st_size == 0:
            path.unlink(missing_ok=True)
        os.close(held)


def _opened(path: Path) -> int:
    if path.is_dir():
        return os.open(path, os.O_RDONLY)
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
