"""Readers of file formats: each streams the rows of a file, with the place of each row."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from response_tuning.errors import DataError
from response_tuning.mailboxes import read_eml, read_mbox
from response_tuning.rows import BLANK, Row, check_is_file, one_line, shown, unreadable
from response_tuning.spreadsheets import Form, read_csv, read_xlsx
from response_tuning.text_lines import encoding_of, lines

if TYPE_CHECKING:
    import pyarrow.parquet

__all__ = [
    "BLANK",
    "COMPRESSED_SUFFIXES",
    "READERS",
    "TEXT_SUFFIXES",
    "Form",
    "Row",
    "check_is_file",
    "format_of",
    "json_rows",
    "lines",
    "one_line",
    "open_parquet",
    "read",
    "read_texts",
    "shown",
    "table_rows",
]

BATCH_ROWS = 1000
JSON_LIMIT = 2**31
"""Bytes of the largest ``.json`` file (2 GiB), which is parsed as a whole."""


def read(path: Path, form: Form | None = None) -> Iterator[Row]:
    """Yield the rows of a file in one of the formats of ``READERS``.

    Raises:
        DataError: the file is unusable; one line with file, line, value and next step.
    """
    try:
        yield from READERS[format_of(path)](path, form or Form())
    except OSError as error:
        raise unreadable(path, error) from error


def format_of(path: Path) -> str:
    """Return the suffix that names the format of a file: Apple Mail calls a mailbox ``mbox``."""
    return ".mbox" if path.name == "mbox" else path.suffix.lower()


def read_texts(files: Sequence[Path], encoding: str | None = None) -> Iterator[Row]:
    """Yield one row, with the column ``text``, for each file.

    Every line end becomes a line feed, and the last one is removed: editors write it to end the
    last line. Any other file is a row with a fault, so that the audit counts it.

    Raises:
        DataError: a text cannot be read, or its encoding cannot be found out.
    """
    for file in files:
        if file.suffix.lower() not in TEXT_SUFFIXES:
            yield Row(str(file), {}, f"not a {' or '.join(TEXT_SUFFIXES)} file")
            continue
        text = re.sub(r"\r\n?", "\n", "".join(lines(file, encoding or encoding_of(file))))
        yield Row(str(file), {"text": text.removesuffix("\n")})


def table_rows(
    tables: "Iterable[pyarrow.RecordBatch | pyarrow.Table]", name: str, before: int = 0
) -> Iterator[Row]:
    """Yield the rows of Arrow tables; ``before`` is the number of records before the first."""
    number = before
    for table in tables:
        for fields in table.to_pylist():
            number += 1
            yield Row(f"{name}: record {number}", fields)


def json_rows(texts: Iterable[str], path: object, first: int = 1) -> Iterator[Row]:
    """Yield a row for each line of a JSONL file called ``path``; ``first`` is its line number."""
    for number, line in enumerate(texts, start=first):
        where = f"{path}:{number}"
        if not line or line.isspace():
            yield Row(where, {}, BLANK)
        else:
            yield Row(where, _object(_parse(line.rstrip("\r\n"), path, number), where))


def _jsonl(path: Path, form: Form) -> Iterator[Row]:
    yield from json_rows(lines(path, form.encoding), path)


def _json(path: Path, form: Form) -> Iterator[Row]:
    check_is_file(path)
    # The parser needs the whole text at once, and several times its size in memory.
    size = path.stat().st_size
    if size > JSON_LIMIT:
        raise DataError(
            f"{path}: {size / 2**30:.1f} GiB, and a .json file is read as a whole; write one "
            "object a line into a .jsonl file"
        )
    text = "".join(lines(path, form.encoding, JSON_LIMIT))
    if not text or text.isspace():
        return
    rows = _parse(text, path, 1)
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a JSON array of objects, found {shown(rows)}")
    for number, row in enumerate(rows, start=1):
        where = f"{path}: record {number}"
        yield Row(where, _object(row, where))


def _parquet(path: Path, form: Form) -> Iterator[Row]:
    check_is_file(path)
    with open_parquet(path, path) as table:
        yield from table_rows(table.iter_batches(batch_size=BATCH_ROWS), str(path))


@contextmanager
def open_parquet(content: Path | BinaryIO, path: object) -> "Iterator[pyarrow.parquet.ParquetFile]":
    """Open a Parquet file; ``path`` is its name in errors.

    Raises:
        DataError: it is damaged or another file; raised for errors inside the block, too.
    """
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(content) as table:
            yield table
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        raise DataError(
            f"{path}: cannot be read as Parquet: {one_line(error)}; write the file again"
        ) from error


def _parse(text: str, path: object, line: int) -> Any:  # noqa: ANN401 - whatever JSON can hold
    try:  # without the searches for white space around it, which take a quarter of the time
        value, end = _DECODER.raw_decode(text)
        if end == len(text):
            return value
    except (ValueError, RecursionError, _RepeatedKeyError):
        pass  # raised again below, with its place
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


READERS: dict[str, Callable[[Path, Form], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": _parquet,
    ".xlsx": read_xlsx,
    ".xlsm": read_xlsx,
    ".mbox": read_mbox,
    ".eml": read_eml,
}
TEXT_SUFFIXES = (".txt", ".md")
COMPRESSED_SUFFIXES = (".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z")
