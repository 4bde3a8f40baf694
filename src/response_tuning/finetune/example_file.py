"""The examples of the data stage, read from their file on demand and never all at once."""

import os
import weakref
from array import array
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from response_tuning.artifacts import Example, file_digest, read_jsonl
from response_tuning.errors import DataError


class Examples(Protocol):
    """Examples in a fixed order. A list is one, and so is an ``ExampleFile``."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> Example: ...

    def __iter__(self) -> Iterator[Example]: ...


class ExampleFile:
    """The examples of a file: reading in order keeps nothing, by position 8 bytes a line.

    Raises:
        DataError: the file cannot be read, or a line is no example.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Example]:
        return read_jsonl(self._path, Example)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, position: int) -> Example:
        line = self._content[self._starts[position] : self._starts[position + 1]]
        try:
            return Example.model_validate_json(line)
        except ValidationError as error:
            raise DataError(f"{self._path}:{position + 1}: not an Example") from error

    @cached_property
    def sha256(self) -> str:
        """The digest of the file, as in the manifest of a run."""
        return file_digest(self._path)

    @cached_property
    def _starts(self) -> "array[int]":
        """Where each line begins, and where the last one ends, in bytes."""
        with self._path.open("rb") as lines:
            return array("q", accumulate(map(len, lines), initial=0))

    @cached_property
    def _content(self) -> "BytesOnDisk":
        return BytesOnDisk(self._path)


class BytesOnDisk:
    """The bytes of a file, sliced as a memory map is.

    Pages of a memory map count as memory of the process, so after an epoch the process would seem
    to hold the whole file; what is read here does not count.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)

    def __getitem__(self, where: slice) -> bytes:
        # Not seek and read: a forked worker shares the descriptor and its position.
        return os.pread(self._descriptor, where.stop - where.start, where.start)

    def __reduce__(self) -> "tuple[Callable[[Path], BytesOnDisk], tuple[Path]]":
        return BytesOnDisk, (self._path,)  # a worker that is not forked opens its own
