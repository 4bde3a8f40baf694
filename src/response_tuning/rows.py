"""A row of a source, and how an error quotes a file: shared by the readers of all formats."""

import stat
from pathlib import Path
from typing import Any, NamedTuple

from response_tuning.errors import DataError

SHOWN = 60
BLANK = "blank line"
_NOT_FILES = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Row(NamedTuple):
    """One row of a source."""

    where: str
    """File and line, or record number."""
    fields: dict[str, Any]
    fault: str = ""
    """Why the row cannot be read; empty for a row with fields."""


def check_is_file(path: Path) -> None:
    """Refuse anything but a regular file: a pipe or a device may never end.

    Raises:
        DataError: ``path`` is not a regular file, or does not exist.
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise unreadable(path, error) from error
    if kind in _NOT_FILES:
        raise DataError(f"{path}: {_NOT_FILES[kind]}, not a file; give a regular file")


def shown(value: object) -> str:
    """Return ``repr(value)``, shortened to fit into an error of one line."""
    # A long string is cut first, so that its whole repr is never built.
    try:
        text = repr(value[: SHOWN + 1] if isinstance(value, str) else value)
    except (RecursionError, ValueError):  # nested deeply; an integer of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def one_line(error: Exception) -> str:
    """Return the message of a library's error as one line."""
    return " ".join(str(error).split())[:300]


def unreadable(path: Path, error: Exception) -> DataError:
    """Return the error for a file that the system does not let us read."""
    return DataError(
        f"{path}: cannot be read: {getattr(error, 'strerror', None) or one_line(error)}"
    )
