import sys
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import pytest

from response_tuning.errors import ConfigError, DataError
from response_tuning.readers import Form, read
from response_tuning.spreadsheets import csv_form, described


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def workbook(path: Path, **sheets: list[list[Any]]) -> Path:
    openpyxl = pytest.importorskip("openpyxl", reason="the extra 'xlsx' is not installed")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


OUTLOOK = (
    "Betreff;Text;Von: (Name)\r\n"
    'AW: Tee;"Grüße, ""Anna""\r\nzweite Zeile; mit Semikolon\r\n";Anna Müller\r\n'
)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_an_export_with_semicolons_is_read_in_each_encoding(encoding: str, tmp_path: Path) -> None:
    (row,) = read(written(tmp_path / "a.csv", OUTLOOK.encode(encoding)))
    assert row.fields == {
        "Betreff": "AW: Tee",
        "Text": 'Grüße, "Anna"\nzweite Zeile; mit Semikolon\n',
        "Von: (Name)": "Anna Müller",
    }


@pytest.mark.parametrize(
    ("content", "sign"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b\n1;2\n", ";"),
        ("a\tb\n1\t2\n", "\t"),
        ("a|b\n1|2\n", "|"),
        ("a\nonly one column\n", ","),
        # Only one of two signs cuts each row into as many cells as the header.
        ("price, net;price, gross\n3,50;4,10\n3;4,1\n", ";"),
        ("a;b,c\n1,2\n3,4\n", ","),
        ('"a;b",c\n1,2\n', ","),
        ("sep=;\na,b;c\n", ";"),
    ],
)
def test_the_delimiter_is_found_out_from_the_first_rows(
    content: str, sign: str, tmp_path: Path
) -> None:
    assert csv_form(written(tmp_path / "a.csv", content), Form()).delimiter == sign


def test_two_delimiters_that_fit_are_refused_and_one_can_be_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "a;b,c\n1;2,3\n")
    with pytest.raises(DataError) as error:
        list(read(path))
    assert f"{path}:1: each of the first rows has 2 between" in str(error.value)
    assert "commas" in str(error.value) and "semicolons" in str(error.value)
    assert "--delimiter" in str(error.value)
    (row,) = read(path, Form(delimiter="semicolon"))
    assert row.fields == {"a": "1", "b,c": "2,3"}


def test_any_sign_may_be_named(tmp_path: Path) -> None:
    (row,) = read(written(tmp_path / "a.csv", "a^b\n1^2\n"), Form(delimiter="^"))
    assert row.fields == {"a": "1", "b": "2"}
    (row,) = read(written(tmp_path / "a.tsv", "a\tb;c\n1\t2;3\n"))
    assert row.fields == {"a": "1", "b;c": "2;3"}


def test_a_column_without_a_name_is_called_by_its_place(tmp_path: Path) -> None:
    (row,) = read(written(tmp_path / "a.csv", "a;;\n1;2;\n"))
    assert row.fields == {"a": "1", "column 2": "2", "column 3": ""}


def test_how_a_file_is_read_is_put_into_words(tmp_path: Path) -> None:
    form = csv_form(written(tmp_path / "a.csv", OUTLOOK.encode("cp1252")), Form())
    assert described(form) == "CP1252 with semicolons between cells"
    assert described(Form("utf-8", "^")) == "UTF-8 with '^' between cells"


def test_the_cells_of_a_workbook_become_the_text_of_a_csv_file(tmp_path: Path) -> None:
    rows: list[list[Any]] = [
        [None, None],
        ["answer", "sent", "pieces", "half", None],
        ["Two\nlines", datetime(2026, 3, 1), 3.0, 0.5],  # noqa: DTZ001 - cells have no zone
        ["yes", datetime(2026, 3, 1, 9, 30), True],  # noqa: DTZ001
        [],
        [None, date(2026, 3, 2), time(9, 5), "x"],
    ]
    path = workbook(tmp_path / "a.xlsx", Answers=rows, Empty=[])
    first, second, blank, third = read(path)
    assert first.where == f"{path}: sheet 'Answers' row 3"
    assert [*first.fields.values()] == ["Two\nlines", "2026-03-01", "3", "0.5"]
    assert [*second.fields.values()] == ["yes", "2026-03-01 09:30:00", "True", ""]
    assert blank.fault == "blank line"
    assert [*third.fields.values()] == ["", "2026-03-02", "09:05:00", "x"]


def test_of_two_sheets_with_rows_one_has_to_be_named(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", Answers=[["response"], ["a"]], Prices=[["p"], [1]])
    with pytest.raises(DataError, match=r"2 sheets have rows: 'Answers', 'Prices'.*--sheet"):
        list(read(path))
    assert [row.fields for row in read(path, Form(sheet="Answers"))] == [{"response": "a"}]
    with pytest.raises(DataError, match=r"no sheet 'x' \(--sheet\); its sheets are 'Answers'"):
        list(read(path, Form(sheet="x")))


def test_a_value_beyond_the_named_columns_is_refused(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", Answers=[["response"], ["a", "b"]])
    with pytest.raises(DataError, match="row 2: a value in column 2, but the first row names 1"):
        list(read(path))


def test_a_file_that_is_no_workbook_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl", reason="the extra 'xlsx' is not installed")
    for content in (b"response\nyes\n", b"PK\x03\x04rest"):
        with pytest.raises(DataError, match="cannot be read as an Excel workbook"):
            list(read(written(tmp_path / "a.xlsx", content)))


def test_without_openpyxl_the_error_has_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(ConfigError, match=r"pip install 'response-tuning\[xlsx\]'"):
        list(read(written(tmp_path / "a.xlsx", b"PK\x03\x04")))
