"""Rows of CSV files and Excel workbooks, as programs in any country write them."""

import csv
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import date, datetime, time
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning.errors import ConfigError, DataError
from response_tuning.rows import BLANK, Row, check_is_file, one_line, shown
from response_tuning.text_lines import LINE_LIMIT, encoding_of, lines

if TYPE_CHECKING:
    from openpyxl import Workbook
    from openpyxl.worksheet._read_only import ReadOnlyWorksheet

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
"""Name in settings -> the sign between cells. Excel writes semicolons where the comma is the
decimal mark."""
_NAMES = {sign: f"{name}s" for name, sign in DELIMITERS.items()}
_ROWS_TRIED = 20
"""Rows that decide between two signs of the header."""


class Form(NamedTuple):
    """How a spreadsheet is read; None is found out from its content."""

    encoding: str | None = None
    delimiter: str | None = None
    """A name in ``DELIMITERS``, or one character."""
    sheet: str | None = None


def csv_form(path: Path, form: Form) -> Form:
    """Return the encoding and the delimiter of a CSV file, given or found out.

    Raises:
        DataError: the content does not decide between two of them.
    """
    encoding = form.encoding or encoding_of(path)
    if form.delimiter is not None:
        return Form(encoding, DELIMITERS.get(form.delimiter, form.delimiter))
    with closing(lines(path, encoding)) as content:
        first = next(content, "")
    if named := _named_delimiter(first):
        return Form(encoding, named)
    if path.suffix.lower() == ".tsv":
        return Form(encoding, "\t")
    return Form(encoding, _delimiter(path, encoding, first))


def described(form: Form) -> str:
    """Return how a CSV file is read, in words."""
    sign = form.delimiter or ","
    return f"{str(form.encoding).upper()} with {_NAMES.get(sign, shown(sign))} between cells"


def read_csv(path: Path, form: Form) -> Iterator[Row]:
    """Yield the rows of a CSV file; the first line names the columns.

    Raises:
        DataError: a row is broken; the message has its line.
    """
    form = csv_form(path, form)
    separator = form.delimiter or ","
    limit = csv.field_size_limit(LINE_LIMIT)  # process-wide, so it is put back
    before, reader = _reader(lines(path, form.encoding), separator)
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


def read_xlsx(path: Path, form: Form) -> Iterator[Row]:
    """Yield the rows of a sheet of a workbook; its first row with a value names the columns.

    Values become the text that a CSV file would have: dates in ISO 8601, formulas as their last
    result, empty cells as empty text.

    Raises:
        ConfigError: openpyxl is not installed.
        DataError: the workbook cannot be read, or has several sheets and none is named.
    """
    check_is_file(path)
    book = _workbook(path)
    try:
        sheet = _sheet(book, form.sheet, path)
        yield from _sheet_rows(sheet, f"{path}: sheet {shown(sheet.title)} row")
    finally:
        book.close()


def _delimiter(path: Path, encoding: str, first: str) -> str:
    """Return the sign that cuts the header, and the rows after it into as many cells."""
    unquoted = re.sub(r'"[^"]*"', "", first)
    inside = sorted((sign for sign in _NAMES if sign in unquoted), key=unquoted.count)
    if len(inside) < 2:
        return inside[0] if inside else ","
    cells = {sign: _regular(path, encoding, sign) for sign in inside}
    fits = [sign for sign in inside if cells[sign]]
    if len(fits) > 1:
        ways = " or ".join(f"{cells[sign]} between {_named(sign)}" for sign in reversed(fits))
        raise DataError(
            f"{path}:1: each of the first rows has {ways}; name the sign between cells with "
            "--delimiter, such as --delimiter semicolon"
        )
    return fits[0] if fits else inside[-1]


def _regular(path: Path, encoding: str, sign: str) -> int:
    """Return the number of cells of the first rows if all have as many; else 0."""
    with closing(lines(path, encoding)) as content:
        _, reader = _reader(content, sign)
        try:
            lengths = {len(cells) for cells in islice(reader, _ROWS_TRIED) if cells}
        except csv.Error:
            return 0
    return lengths.pop() if len(lengths) == 1 else 0


def _reader(content: Iterator[str], separator: str) -> tuple[int, Any]:
    """Return a reader of cells behind Excel's ``sep=;``, and the lines that were skipped."""
    first = next(content, "")
    skipped = 1 if _named_delimiter(first) else 0
    rest = content if skipped else chain([first], content)
    return skipped, csv.reader(rest, strict=True, delimiter=separator)


def _named_delimiter(first: str) -> str:
    named = re.fullmatch(r"sep=(.)\s*", first, re.IGNORECASE)
    return named[1] if named else ""


def _named(separator: str) -> str:
    return _NAMES.get(separator, shown(separator))


def _header(cells: Sequence[str], where: str) -> list[str]:
    """Return the names of the columns; one without a name is called by its place."""
    names = [name if name.strip() else f"column {n}" for n, name in enumerate(cells, start=1)]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise DataError(f"{where}: two columns are called {shown(repeated[0])}; rename one")
    return names


def _csv_row(header: list[str], cells: list[str], where: str, separator: str) -> Row:
    if not cells:
        return Row(where, {}, BLANK)
    if len(cells) != len(header):
        name = _named(separator)
        raise DataError(
            f"{where}: {len(cells)} cells between {name}, but the header has {len(header)} "
            f"columns: {shown(cells)}; quote the cells that hold {name}, quotes or line breaks, or "
            "name another sign between cells with --delimiter"
        )
    # A line break in a cell of Windows is two characters, and a model would learn to write both.
    texts = [cell.replace("\r\n", "\n") if "\r" in cell else cell for cell in cells]
    return Row(where, dict(zip(header, texts, strict=True)))


def _workbook(path: Path) -> "Workbook":
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise ConfigError(
            f"{path}: reading a workbook needs openpyxl: pip install 'response-tuning[xlsx]', or "
            "save the sheet as CSV"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and validation, which no cell needs
            return load_workbook(path, read_only=True, data_only=True)
    except OSError:
        raise
    except Exception as error:  # zipfile, the XML parser and openpyxl have no common base
        raise DataError(
            f"{path}: cannot be read as an Excel workbook: {one_line(error)}; save it again "
            "without a password, or as CSV"
        ) from error


def _sheet(book: "Workbook", named: str | None, path: Path) -> "ReadOnlyWorksheet":
    """Return the named sheet, or the only one with a value."""
    sheets = {sheet.title: sheet for sheet in book.worksheets}
    listed = ", ".join(map(repr, sheets))
    if named is not None:
        if named not in sheets:
            raise DataError(f"{path}: no sheet {named!r} (--sheet); its sheets are {listed}")
        return sheets[named]
    filled = [sheet for sheet in sheets.values() if any(map(any, _cells(sheet)))]
    if len(filled) > 1:
        names = ", ".join(repr(sheet.title) for sheet in filled)
        raise DataError(f"{path}: {len(filled)} sheets have rows: {names}; name one with --sheet")
    return filled[0] if filled else next(iter(sheets.values()))


def _cells(sheet: "ReadOnlyWorksheet") -> Iterator[list[str]]:
    """Yield the texts of each row, without the empty cells at its end."""
    for row in sheet.iter_rows(values_only=True):
        cells = list(map(_text, row))
        while cells and not cells[-1]:
            cells.pop()
        yield cells


def _sheet_rows(sheet: "ReadOnlyWorksheet", where: str) -> Iterator[Row]:
    header: list[str] = []
    for number, cells in enumerate(_cells(sheet), start=1):
        if not header:
            header = _header(cells, f"{where} {number}")
        elif not cells:
            yield Row(f"{where} {number}", {}, BLANK)
        elif len(cells) > len(header):
            raise DataError(
                f"{where} {number}: a value in column {len(cells)}, but the first row names "
                f"{len(header)} columns; name the column, or delete the value"
            )
        else:
            cells += [""] * (len(header) - len(cells))
            yield Row(f"{where} {number}", dict(zip(header, cells, strict=True)))


def _text(value: object) -> str:
    """Return the value of a cell as text."""
    if value is None:
        return ""
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    if isinstance(value, datetime | date | time):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    # Excel writes line breaks in a cell as one line feed, and a carriage return as an escape.
    return str(value).replace("_x000D_", "").replace("\r\n", "\n")
