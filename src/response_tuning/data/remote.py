"""Files at an address: object storage, the hub or a web server, read as they are needed.

fsspec opens them. Of a Parquet file, only the row groups that are read travel; nothing is kept on
this machine.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from response_tuning.addresses import filesystem
from response_tuning.artifacts import digest
from response_tuning.data import files, pieces
from response_tuning.data.pieces import Piece
from response_tuning.errors import DataError, ResponseTuningError
from response_tuning.rows import Row, one_line
from response_tuning.text_lines import WHOLE

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

FORMATS = (pieces.TABLE, *pieces.LINES)
_GLOB = frozenset("*?[")


@dataclass(frozen=True)
class RemoteFile:
    """A file at an address; ``str`` of it is the address."""

    address: str

    def __str__(self) -> str:
        return self.address

    @property
    def suffix(self) -> str:
        """Return the suffix of its name, in small letters."""
        return PurePosixPath(self.address).suffix.lower()

    def open(self, mode: Literal["rb"], /) -> BinaryIO:
        """Open it for reading, with a buffer: lines of fsspec's own files are slow."""
        system, path = filesystem(self.address)
        return io.BufferedReader(system.open(path, mode), 2**20)


@dataclass(frozen=True)
class RemoteFiles:
    """The files of a source at an address, in the order of their names.

    Raises:
        DataError: there is none that can be read, or the address cannot be reached.
    """

    address: str
    read: tuple[RemoteFile, ...]

    @classmethod
    def find(cls, address: str, split: str) -> "RemoteFiles":
        """List the Parquet and JSONL files of a folder or a pattern, or take the one file."""
        with _explained(address):
            system, path = filesystem(address)
            found = sorted(_paths(system, path))
            several = found != [path]
            base = path.rstrip("/") + "/"
            found = [
                one
                for one in found
                if PurePosixPath(one).suffix.lower() in FORMATS
                and not (several and not files.may_hold(_below(base, one), split))
            ]
            if not found:
                raise DataError(
                    f"{address}: no {', '.join(FORMATS)} file of the split '{split}'; at an "
                    "address, these are read; copy other formats to this machine"
                )
            return cls(address, tuple(RemoteFile(system.unstrip_protocol(one)) for one in found))

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all files."""
        for piece in self.pieces():
            yield from piece()

    def pieces(self) -> list[Piece]:
        """Cut Parquet files at row groups; a JSONL file is one piece."""
        found: list[Piece] = []
        with _explained(self.address):
            for file in self.read:
                if file.suffix == pieces.TABLE:
                    found += pieces.of_parquet(file)
                else:
                    found.append(partial(pieces.read_lines, file, WHOLE))
        return [partial(_read, self.address, piece) for piece in found]

    def origin(self) -> dict[str, Any]:
        """Return the address, and a digest of what its storage says about the files.

        The digest is of names, sizes and, where there are any, checksums or times.
        """
        with _explained(self.address):
            about = []
            for file in self.read:
                system, path = filesystem(file.address)
                about += [path, str(system.info(path)["size"]), str(system.checksum(path))]
        return {"address": self.address, "files": len(self.read), "listing": digest(*about)}


def origin_at(address: str, split: str) -> dict[str, Any]:
    """Return the origin of the files that are at an address now.

    Raises:
        DataError: as ``RemoteFiles.find``.
    """
    return RemoteFiles.find(address, split).origin()


def _paths(system: "AbstractFileSystem", path: str) -> list[str]:
    if _GLOB & {*path}:
        return list(system.glob(path))
    return list(system.find(path)) if system.isdir(path) else [path]


def _below(base: str, path: str) -> PurePosixPath:
    return PurePosixPath(path.removeprefix(base))


def _read(address: str, piece: Piece) -> Iterator[Row]:
    with _explained(address):
        yield from piece()


@contextmanager
def _explained(address: str) -> Iterator[None]:
    try:
        yield
    except (ResponseTuningError, GeneratorExit):
        raise
    except Exception as error:  # each storage has errors of its own
        raise DataError(
            f"{address}: cannot be read: {one_line(error) or type(error).__name__}; check the "
            "address and the access to it"
        ) from error
