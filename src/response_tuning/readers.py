"""File formats: each reader streams the rows of a file, and says where a person finds each."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning.errors import DataError

if TYPE_CHECKING:
    import pyarrow

SHOWN = 60
BATCH_ROWS = 1000
BLANK = "blank line"
_CSV_CELL_LIMIT = 2**31 - 1  # the csv module's own is 131,072 characters; a C long on Windows


class Row(NamedTuple):
    """One row of a source."""

    where: str
    """File and line, or record number."""
    fields: dict[str, Any]
    fault: str = ""
    """Why there is nothing to read in it; empty for a row with fields."""


def read(path: Path) -> Iterator[Row]:
    """Yield the rows of a JSONL, JSON, CSV or Parquet file.

    Raises:
        DataError: the file is unusable; one line with file, line, value and next step.
    """
    try:
        yield from READERS[path.suffix.lower()](path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or one_line(error)}") from error


def read_texts(files: Sequence[Path]) -> Iterator[Row]:
    """Yield one row, with the column ``text``, for each file.

    A file's last line feed ends its last line, as editors write it, and is no part of the text.
    A file that is no text is a row with a fault, so that it is counted.

    Raises:
        DataError: a text is not UTF-8 or cannot be read.
    """
    for file in files:
        if file.suffix.lower() not in TEXT_SUFFIXES:
            yield Row(str(file), {}, f"not a {' or '.join(TEXT_SUFFIXES)} file")
            continue
        try:
            text = "".join(_lines(file))
        except OSError as error:
            raise DataError(f"{file}: cannot be read: {error.strerror}") from error
        yield Row(str(file), {"text": text.removesuffix("\n")})


def table_rows(tables: "Iterable[pyarrow.RecordBatch | pyarrow.Table]", name: str) -> Iterator[Row]:
    """Yield the rows of Arrow tables, numbered from record 1."""
    number = 0
    for table in tables:
        for fields in table.to_pylist():
            number += 1
            yield Row(f"{name}: record {number}", fields)


def shown(value: object) -> str:
    """Return ``repr(value)``, cut to what fits into an error of one line."""
    # A long string is cut first, so that its whole repr is never built.
    text = repr(value[: SHOWN + 1] if isinstance(value, str) else value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def one_line(error: Exception) -> str:
    """Return the message of a library's error on one line."""
    return " ".join(str(error).split())[:300]


def _jsonl(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), start=1):
        where = f"{path}:{number}"
        if not line or line.isspace():
            yield Row(where, {}, BLANK)
        else:
            yield Row(where, _object(_parse(line.rstrip("\r\n"), path, number), where))


def _json(path: Path) -> Iterator[Row]:
    text = "".join(_lines(path))
    if not text or text.isspace():
        return
    rows = _parse(text, path, 1)
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected a JSON array of objects, found {shown(rows)}")
    for number, row in enumerate(rows, start=1):
        where = f"{path}: record {number}"
        yield Row(where, _object(row, where))


def _csv(path: Path) -> Iterator[Row]:
    limit = csv.field_size_limit(_CSV_CELL_LIMIT)  # process-wide, so it is put back
    reader = csv.reader(_lines(path), strict=True)
    line = 1
    try:
        header = _header(next(reader, []), path)
        line = reader.line_num + 1
        for cells in reader:
            yield _csv_row(header, cells, f"{path}:{line}")
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}:{line}: not CSV: {error}; a cell with commas, quotes or line breaks must be "
            "quoted, and quotes in it doubled"
        ) from error
    finally:
        csv.field_size_limit(limit)


def _header(cells: list[str], path: Path) -> list[str]:
    repeated = [name for name in cells if cells.count(name) > 1]
    if repeated:
        raise DataError(f"{path}:1: column {shown(repeated[0])} is there twice; rename one")
    return cells


def _csv_row(header: list[str], cells: list[str], where: str) -> Row:
    if not cells:
        return Row(where, {}, BLANK)
    if len(cells) != len(header):
        raise DataError(
            f"{where}: {len(cells)} cells, but the header has {len(header)} columns: "
            f"{shown(cells)}; quote the cells that hold commas, quotes or line breaks"
        )
    return Row(where, dict(zip(header, cells, strict=True)))


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            yield from table_rows(table.iter_batches(batch_size=BATCH_ROWS), str(path))
    except (pyarrow.ArrowException, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as Parquet: {one_line(error)}; write the file anew"
        ) from error


def _lines(path: Path) -> Iterator[str]:
    """Yield lines with their ends, split at line feeds only: text may hold other separators."""
    start = 0
    with path.open("rb") as content:
        for number, line in enumerate(content, start=1):
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}:{number}: byte {start + error.start} of the file is "
                    f"0x{line[error.start]:02x}, which is not UTF-8; save the file as UTF-8"
                ) from error
            start += len(line)
            yield text.removeprefix("\ufeff") if number == 1 else text


def _parse(text: str, path: Path, line: int) -> Any:  # noqa: ANN401 - whatever JSON can hold
    try:
        return json.loads(text)
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
