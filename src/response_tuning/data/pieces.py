"""Pieces of a source: consecutive rows that can be read without the rows before them.

How a source is cut depends on its files alone, never on the number of processes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, TypeAlias, TypeVar

from response_tuning.readers import (
    BATCH_ROWS,
    Form,
    format_of,
    json_rows,
    open_parquet,
    read,
    read_texts,
    table_rows,
)
from response_tuning.rows import Row, unreadable
from response_tuning.text_lines import Extent, can_be_cut, extents, utf_8_lines

T = TypeVar("T")
Piece: TypeAlias = Callable[[], Iterator[Row]]
"""Reads the rows; picklable, so that another process can call it."""
PIECE_BYTES = 2**23
"""Bytes of a piece, about: some 14,000 responses. A killed command loses what it had of one."""
LINES, TABLE = (".jsonl", ".ndjson"), ".parquet"


class Readable(Protocol):
    """A file here or at an address."""

    def open(self, mode: Literal["rb"], /) -> BinaryIO:
        """Open it for reading."""


def of_files(how: Mapping[Path, Form], *, are_texts: bool) -> list[Piece]:
    """Cut files into pieces; return none if all of them are one.

    Raises:
        DataError: a file cannot be read.
    """
    try:
        sizes = {file: file.stat().st_size for file in how}
        if sum(sizes.values()) <= PIECE_BYTES:
            return []
        if are_texts:
            groups = _grouped(how, sizes.values())
            return [partial(_texts, [(file, how[file]) for file in group]) for group in groups]
        return list(chain.from_iterable(_of_table(file, form) for file, form in how.items()))
    except OSError as error:
        raise unreadable(Path(error.filename), error) from error


def _of_table(file: Path, form: Form) -> list[Piece]:
    if format_of(file) in LINES and can_be_cut(file, form.encoding):
        return [partial(read_lines, file, extent) for extent in extents(file, PIECE_BYTES)]
    if format_of(file) == TABLE:
        return of_parquet(file)
    return [partial(read, file, form)]


def of_parquet(file: Readable) -> list[Piece]:
    """Cut a Parquet file into pieces of whole row groups.

    Raises:
        DataError: it is no Parquet file.
    """
    with file.open("rb") as content, open_parquet(content, file) as table:
        groups = [table.metadata.row_group(number) for number in range(table.num_row_groups)]
    pieces: list[Piece] = []
    before = 0
    for numbers in _grouped(range(len(groups)), [group.total_byte_size for group in groups]):
        pieces.append(partial(_read_groups, file, numbers, before))
        before += sum(groups[number].num_rows for number in numbers)
    return pieces


def read_lines(file: Readable, extent: Extent) -> Iterator[Row]:
    """Yield the rows of a part of a JSONL file.

    Raises:
        DataError: a line is not UTF-8 or no JSON object; the message names file and line.
    """
    with file.open("rb") as content:
        yield from json_rows(utf_8_lines(content, file, extent), file, extent.line)


def _read_groups(file: Readable, numbers: list[int], before: int) -> Iterator[Row]:
    with file.open("rb") as content, open_parquet(content, file) as table:
        batches = table.iter_batches(batch_size=BATCH_ROWS, row_groups=numbers)
        yield from table_rows(batches, str(file), before)


def _texts(files: list[tuple[Path, Form]]) -> Iterator[Row]:
    for file, form in files:
        yield from read_texts([file], form.encoding)


def _grouped(things: Iterable[T], sizes: Iterable[int]) -> list[list[T]]:
    """Put consecutive things together until they have the size of a piece."""
    groups: list[list[T]] = []
    room = 0
    for thing, size in zip(things, sizes, strict=True):
        if room <= 0:
            groups.append([])
            room = PIECE_BYTES
        groups[-1].append(thing)
        room -= size
    return groups
