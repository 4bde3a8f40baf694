"""Readers of file formats: each streams the rows of a file, with the place of each row."""

import csv
import io
import json
import re
import stat
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from response_tuning.errors import DataError

if TYPE_CHECKING:
    import pyarrow


SHOWN = 60
BATCH_ROWS = 1000
BLANK = "blank line"
LINE_LIMIT = 2**28
"""Bytes of the longest line (256 MiB): a row must fit into memory."""
JSON_LIMIT = 2**31
"""Bytes of the largest ``.json`` file (2 GiB), which is parsed as a whole."""
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""Separators of CSV cells. Excel writes semicolons where the comma is the decimal mark."""
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


def read(path: Path) -> Iterator[Row]:
    """Yield the rows of a JSONL, JSON, CSV or Parquet file.

    Raises:
        DataError: the file is unusable; one line with file, line, value and next step.
    """
    try:
        yield from READERS[path.suffix.lower()](path)
    except OSError as error:
        raise _unreadable(path, error) from error


def check_is_file(path: Path) -> None:
    """Refuse anything but a regular file: a pipe or a device may never end.

    Raises:
        DataError: ``path`` is not a regular file, or does not exist.
    """
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _unreadable(path, error) from error
    if kind in _NOT_FILES:
        raise DataError(f"{path}: {_NOT_FILES[kind]}, not a file; give a regular file")


def read_texts(files: Sequence[Path]) -> Iterator[Row]:
    """Yield one row, with the column ``text``, for each file.

    Every line end becomes a line feed, and the last one is removed: editors write it to end the
    last line. Any other file is a row with a fault, so that the audit counts it.

    Raises:
        DataError: a text is not UTF-8 or cannot be read.
    """
    for file in files:
        if file.suffix.lower() not in TEXT_SUFFIXES:
            yield Row(str(file), {}, f"not a {' or '.join(TEXT_SUFFIXES)} file")
            continue
        text = re.sub(r"\r\n?", "\n", "".join(lines(file)))
        yield Row(str(file), {"text": text.removesuffix("\n")})


def lines(path: Path) -> Iterator[str]:
    """Yield lines with their ends, split at line feeds only: texts may contain other separators.

    UTF-8, or UTF-16 with a byte-order mark, as Excel and Notepad write it.

    Raises:
        DataError: the file cannot be read or is not text; one line with file and line.
    """
    return _lines(path, LINE_LIMIT)


def table_rows(tables: "Iterable[pyarrow.RecordBatch | pyarrow.Table]", name: str) -> Iterator[Row]:
    """Yield the rows of Arrow tables, numbered from record 1."""
    number = 0
    for table in tables:
        for fields in table.to_pylist():
            number += 1
            yield Row(f"{name}: record {number}", fields)


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


def _jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(lines(path), start=1):
        where = f"{path}:{number}"
        if not line or line.isspace():
            yield Row(where, {}, BLANK)
        else:
            yield Row(where, _object(_parse(line.rstrip("\r\n"), path, number), where))


def _json(path: Path) -> Iterator[Row]:
    check_is_file(path)
    # The parser needs the whole text at once, and several times its size in memory.
    size = path.stat().st_size
    if size > JSON_LIMIT:
        raise DataError(
            f"{path}: {size / 2**30:.1f} GiB, and a .json file is read as a whole; write one "
            "object a line into a .jsonl file"
        )
    text = "".join(_lines(path, JSON_LIMIT))
    if not text or text.isspace():
        return
    rows = _parse(text, path, 1)
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a JSON array of objects, found {shown(rows)}")
    for number, row in enumerate(rows, start=1):
        where = f"{path}: record {number}"
        yield Row(where, _object(row, where))


def _csv(path: Path) -> Iterator[Row]:
    limit = csv.field_size_limit(LINE_LIMIT)  # process-wide, so it is put back
    separator, before, content = _separated(lines(path))
    reader = csv.reader(content, strict=True, delimiter=separator)
    line = before + 1
    try:
        header = _header(next(reader, []), f"{path}:{line}")
        line = before + reader.line_num + 1
        for cells in reader:
            yield _csv_row(header, cells, f"{path}:{line}", separator)
            line = before + reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}:{line}: not CSV: {error}; a cell with {_named(separator)}, quotes or line "
            "breaks must be quoted, and quotes in it doubled"
        ) from error
    finally:
        csv.field_size_limit(limit)


def _separated(content: Iterator[str]) -> tuple[str, int, Iterator[str]]:
    """Return the separator of cells, the number of lines that only name it, and the other lines.

    Excel's first line may name it (``sep=;``); else it is the most frequent one in the header.
    """
    first = next(content, "")
    if named := re.fullmatch(r"sep=(.)\s*", first, re.IGNORECASE):
        return named[1], 1, content
    unquoted = re.sub(r'"[^"]*"', "", first)
    return max(_SEPARATORS, key=unquoted.count), 0, chain([first], content)


def _named(separator: str) -> str:
    return _SEPARATORS.get(separator, shown(separator))


def _header(cells: list[str], where: str) -> list[str]:
    repeated = [name for name in cells if cells.count(name) > 1]
    if repeated:
        raise DataError(f"{where}: two columns are called {shown(repeated[0])}; rename one")
    return cells


def _csv_row(header: list[str], cells: list[str], where: str, separator: str) -> Row:
    if not cells:
        return Row(where, {}, BLANK)
    if len(cells) != len(header):
        name = _named(separator)
        raise DataError(
            f"{where}: {len(cells)} cells between {name}, but the header has {len(header)} "
            f"columns: {shown(cells)}; quote the cells that hold {name}, quotes or line breaks"
        )
    return Row(where, dict(zip(header, cells, strict=True)))


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet

    check_is_file(path)
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            yield from table_rows(table.iter_batches(batch_size=BATCH_ROWS), str(path))
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise DataError(
            f"{path}: cannot be read as Parquet: {one_line(error)}; write the file again"
        ) from error


def _lines(path: Path, limit: int) -> Iterator[str]:
    check_is_file(path)
    try:
        with path.open("rb") as content:
            _check_is_text(content.peek(4), path)
            decoded = _utf_16 if content.peek(2)[:2] in _UTF_16_MARKS else _utf_8
            for number, text in enumerate(decoded(content, path, limit), start=1):
                if "\0" in text:
                    raise DataError(
                        f"{path}:{number}: a NUL byte, which is not text; save the file as UTF-8"
                    )
                yield text
    except OSError as error:
        raise _unreadable(path, error) from error


_OTHER_FORMATS = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "a ZIP archive, such as an Excel workbook",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PAR1": "Parquet",
}
"""First bytes of a file in another format than its name claims."""


def _check_is_text(start: bytes, path: Path) -> None:
    for mark, name in _OTHER_FORMATS.items():
        if start.startswith(mark):
            raise DataError(
                f"{path}: its content is {name}, not {path.suffix}; unpack the file, or rename it"
            )


_UTF_16_MARKS = (BOM_UTF16_LE, BOM_UTF16_BE)


def _utf_16(content: BinaryIO, path: Path, limit: int) -> Iterator[str]:
    text = io.TextIOWrapper(content, encoding="utf-16", newline="\n")
    number = 0
    try:
        for number, line in enumerate(iter(partial(text.readline, limit + 1), ""), start=1):
            _check_length(line, limit, path, number)
            yield line
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}:{number + 1}: not UTF-16, as its byte-order mark says: {error.reason}; save "
            "the file as UTF-8"
        ) from error
    finally:
        text.detach()  # the caller closes the file


def _utf_8(content: BinaryIO, path: Path, limit: int) -> Iterator[str]:
    start = 0
    for number, line in enumerate(iter(partial(content.readline, limit + 1), b""), start=1):
        _check_length(line, limit, path, number)
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            in_excel = " (in Excel: 'CSV UTF-8')" if path.suffix.lower() == ".csv" else ""
            raise DataError(
                f"{path}:{number}: byte {start + error.start} of the file is "
                f"0x{line[error.start]:02x}, which is not UTF-8; save the file as UTF-8{in_excel}"
            ) from error
        start += len(line)
        yield text.removeprefix("\ufeff") if number == 1 else text


def _check_length(line: bytes | str, limit: int, path: Path, number: int) -> None:
    if len(line) > limit:
        raise DataError(
            f"{path}:{number}: a line of more than {limit >> 20:,} MiB; write one row a line"
        )


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path}: cannot be read: {getattr(error, 'strerror', None) or one_line(error)}"
    )


def _parse(text: str, path: Path, line: int) -> Any:  # noqa: ANN401 - whatever JSON can hold
    try:
        return _DECODER.decode(text)
    except _RepeatedKeyError as error:
        problem = f"an object has the key {shown(error.key)} twice; remove one"
        raise DataError(f"{path}:{line + _line_of_repeated(text)}: {problem}") from error
    except json.JSONDecodeError as error:
        line += error.lineno - 1
        near = text[max(0, error.pos - 20) : error.pos + 20]
        problem = f"{error.msg} at column {error.colno}, near {shown(near)}"
    except (ValueError, RecursionError) as error:  # a huge integer; nesting without end
        problem = one_line(error)
    raise DataError(
        f"{path}:{line}: not JSON: {problem}; a .jsonl file holds one object a line, a .json file "
        "one array of objects"
    )


class _RepeatedKeyError(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def _with_single_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(key for key in keys if keys.count(key) > 1))
    return fields


_DECODER = json.JSONDecoder(object_pairs_hook=_with_single_keys)


def _line_of_repeated(text: str) -> int:
    """Return the number of lines before the object of an array that repeats a key."""
    # The decoder's hook does not know its position, so the objects are decoded again, one by one.
    start = len(text) - len(text.lstrip())
    if not text.startswith("[", start):
        return text.count("\n", 0, start)
    start += 1
    while True:
        while start < len(text) and text[start] in _BETWEEN:
            start += 1
        try:
            _, start = _DECODER.raw_decode(text, start)
        except (_RepeatedKeyError, ValueError):
            return text.count("\n", 0, start)


_BETWEEN = " \t\r\n,"


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(
            f'{where}: expected an object such as {{"response": …}}, found {shown(value)}'
        )
    return value


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
}
TEXT_SUFFIXES = (".txt", ".md")
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z")
