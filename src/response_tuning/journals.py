"""Journals: files of records that only grow, by whole lines.

The first line names the kind of the records, and each other line ends in a checksum of itself. A
last line that a crash cut short is dropped. Any other content means that the file is the user's,
and nothing is written to it.
"""

import errno
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import BinaryIO, Generic, TypeVar

from pydantic import ValidationError

from response_tuning.artifacts import SCHEMA, Record, check_schema, read_record, writable
from response_tuning.errors import ConfigError, DataError

R = TypeVar("R", bound=Record)

_SYNC_EVERY_S = 1.0
_BLOCK = 65_536
_SUM = re.compile(rb',"check":"([0-9a-f]{16})"\}\n?\Z')


class Journal(Generic[R]):
    """The records of ``kind`` in the file ``path``, which need not exist yet.

    Raises:
        DataError: this package did not write the file of that name.
        ConfigError: it is no regular file, or must not be written; see ``artifacts.writable``.
    """

    def __init__(self, path: Path, kind: type[R]) -> None:
        self.path = path
        self._kind = kind
        self._header = json.dumps({"journal": kind.__name__, "schema": SCHEMA}).encode() + b"\n"
        self._check()

    def __iter__(self) -> Iterator[R]:
        """Yield the records, oldest first.

        Raises:
            DataError: a line is damaged; the message names file and line.
        """
        for _, record in self.placed():
            yield record

    def placed(self) -> Iterator[tuple[int, R]]:
        """Yield the records, each with its place: the position of its first byte.

        Raises:
            DataError: a line is damaged; the message names file and line.
        """
        summed, at = self._is_headed(), 0
        for number, line in self._lines():
            if line.endswith(b"\n") and (number > 1 or not _heading(line)):
                where = f"{self.path}:{number}"
                yield at, read_record(_verified(line, where, required=summed), self._kind, where)
            at += len(line)

    def at(self, places: Iterable[int]) -> Iterator[R]:
        """Yield the records at these places, reading each from the disk.

        Raises:
            DataError: a record is not where it was.
        """
        summed = self._is_headed()
        with self.path.open("rb") as journal:
            for place in places:
                journal.seek(place)
                where = f"{self.path}, byte {place}"
                line = _verified(journal.readline(), where, required=summed)
                yield read_record(line, self._kind, where)

    def __len__(self) -> int:
        """Count the records without reading them."""
        return sum(
            line.endswith(b"\n") and (number > 1 or not _heading(line))
            for number, line in self._lines()
        )

    @contextmanager
    def appending(self, *, each_synced: bool = False) -> Iterator[Callable[[R], int]]:
        """Open the journal and yield a function that appends a record and returns its place.

        When the function returns, the operating system has the record, so that a kill does not lose
        it. It is on the disk within about a second, or at once with ``each_synced``.
        """
        place = writable(self.path)
        place.parent.mkdir(parents=True, exist_ok=True)
        cut_torn_line(place)
        # Unbuffered: each record reaches the system in its own write. A kill tears the last line at
        # most, and opening cuts a torn line.
        with place.open("ab", buffering=0) as out:
            if out.tell() == 0:
                _write(out, self._header)
            synced = time.monotonic()

            def append(record: R) -> int:
                nonlocal synced
                place = out.tell()
                _write(out, _summed(record.model_dump_json().encode()) + b"\n")
                if each_synced or time.monotonic() - synced >= _SYNC_EVERY_S:
                    os.fsync(out.fileno())
                    synced = time.monotonic()
                return place

            try:
                yield append
            finally:
                os.fsync(out.fileno())

    def _is_headed(self) -> bool:
        if not self.path.exists():
            return False
        with self.path.open("rb") as journal:
            return bool(_heading(journal.readline()))

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield every line with its number; the last may be unfinished."""
        if not self.path.exists():
            return
        with self.path.open("rb") as lines:
            yield from enumerate(lines, start=1)

    def _check(self) -> None:
        """Refuse a file that this package did not write."""
        if not self.path.exists():
            return
        if not self.path.is_file():
            raise ConfigError(f"{self.path}: is not a regular file; choose another output")
        with self.path.open("rb") as journal:
            first = journal.readline()
        torn = not first.endswith(b"\n")
        if not (self._header.startswith(first) if torn else self._is_ours(first)):
            raise DataError(
                f"{self.path}: not a journal of {self._kind.__name__} records that rtune "
                "wrote; move it away, or choose another output"
            )

    def _is_ours(self, first: bytes) -> bool:
        heading = _heading(first)
        if heading:
            check_schema(self.path, heading.get("schema"))
            return heading["journal"] == self._kind.__name__
        try:  # the first versions wrote no header
            self._kind.model_validate_json(first)
        except ValidationError:
            return False
        return True


def _summed(line: bytes) -> bytes:
    """Return a JSON object with one more key: a checksum of the others."""
    return line[:-1] + b',"check":"' + _check_of(line) + b'"}'


def _verified(line: bytes, where: str, *, required: bool) -> bytes:
    """Return the object without its checksum; the first versions wrote none.

    Raises:
        DataError: it is no longer what was written.
    """
    checksum = _SUM.search(line)
    whole = line[: checksum.start()] + b"}" if checksum else line
    if (checksum is None and required) or (checksum and checksum[1] != _check_of(whole)):
        raise DataError(
            f"{where}: is no longer what was written; delete this line, and the same command asks "
            "for it again"
        )
    return whole


def _check_of(line: bytes) -> bytes:
    return hashlib.sha256(line).hexdigest()[:16].encode()


def _heading(line: bytes) -> dict[str, object]:
    """Return the content of a journal's first line; empty if the line is anything else."""
    try:
        content = json.loads(line)
    except ValueError:
        return {}
    return content if isinstance(content, dict) and "journal" in content else {}


def cut_torn_line(path: Path) -> None:
    """Cut off a last line that a crash left unfinished, so that appending stays whole lines."""
    if path.exists():
        with path.open("rb+") as journal:
            journal.truncate(_whole(journal))


def _whole(journal: BinaryIO) -> int:
    """Return the length of a file up to its last line break.

    It reads blocks from the end, because a journal may be large and its last line is short.
    """
    end = journal.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _BLOCK)
        journal.seek(start)
        place = journal.read(end - start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0


def _write(out: FileIO, line: bytes) -> None:
    """Append one line in one write, so that a crash can cut only the last line short.

    Raises:
        OSError: the disk is full.
    """
    if out.write(line) != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(out.name))
