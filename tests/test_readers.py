import json
import os
import shutil
import socket
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from response_tuning.errors import DataError
from response_tuning.readers import BATCH_ROWS, read, read_texts, shown


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as error:
        list(read(path))
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_jsonl_rows_are_split_at_line_feeds_only(tmp_path: Path) -> None:
    texts = ["a\u2028b", "c\u0085d", "e\x0bf", "g\x1ch"]
    lines = [json.dumps({"response": text}, ensure_ascii=False) for text in texts[:2]]
    lines += [json.dumps({"response": text}) for text in texts[2:]]
    rows = list(read(written(tmp_path / "a.jsonl", "\n".join(lines))))
    assert [row.fields["response"] for row in rows] == texts


def test_jsonl_rows_say_their_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"a": 1}\n{"a": 2}\n')
    assert [row.where for row in read(path)] == [f"{path}:1", f"{path}:2"]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_last_line_may_end_or_not(tmp_path: Path, end: str) -> None:
    path = written(tmp_path / "a.jsonl", '{"a": 1}\n{"a": 2}' + end)
    assert [row.fields for row in read(path)] == [{"a": 1}, {"a": 2}]


def test_a_blank_line_of_jsonl_is_a_row_with_a_fault(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"a": 1}\n \r\n\n{"a": 2}\n')
    assert [row.fault for row in read(path)] == ["", "blank line", "blank line", ""]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"response": "é"}\n'),
        ("a.json", '[{"response": "é"}]'),
        ("a.csv", "response\né\n"),
    ],
)
def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path, name: str, content: str) -> None:
    path = written(tmp_path / name, b"\xef\xbb\xbf" + content.encode())
    assert [row.fields for row in read(path)] == [{"response": "é"}]


def test_formats_are_known_by_their_suffix_in_any_case(tmp_path: Path) -> None:
    assert len(list(read(written(tmp_path / "A.JSONL", '{"a": 1}\n')))) == 1
    assert len(list(read(written(tmp_path / "a.ndjson", '{"a": 1}\n')))) == 1


def test_a_malformed_line_is_named_with_its_number_and_value(tmp_path: Path) -> None:
    message = refusal(written(tmp_path / "a.jsonl", '{"a": 1}\n{"a": oops}\n'))
    assert ":2: not JSON" in message
    assert "oops" in message


def test_a_malformed_json_file_is_named_with_the_line_inside(tmp_path: Path) -> None:
    message = refusal(written(tmp_path / "a.json", '[\n {"a": 1},\n {"a": oops}\n]'))
    assert ":3: not JSON" in message


@pytest.mark.parametrize("value", ["[" * 100_000, "9" * 5000])
def test_json_that_python_refuses_is_one_line_too(tmp_path: Path, value: str) -> None:
    assert ":1: not JSON" in refusal(written(tmp_path / "a.jsonl", value))


@pytest.mark.parametrize("row", ["[1, 2]", '"text"', "null", "3"])
def test_a_row_that_is_no_object_makes_the_file_unusable(tmp_path: Path, row: str) -> None:
    message = refusal(written(tmp_path / "a.jsonl", f'{{"a": 1}}\n{row}\n'))
    assert ":2: expected an object" in message
    message = refusal(written(tmp_path / "a.json", f'[{{"a": 1}}, {row}]'))
    assert "record 2: expected an object" in message


def test_json_that_is_no_array_is_refused(tmp_path: Path) -> None:
    message = refusal(written(tmp_path / "a.json", '{"data": []}'))
    assert "expected a JSON array of objects" in message


def test_json_lines_in_a_json_file_are_told_their_suffix(tmp_path: Path) -> None:
    message = refusal(written(tmp_path / "a.json", '{"a": 1}\n{"a": 2}\n'))
    assert "a .jsonl file holds one object a line" in message


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_wrong_encoding_is_named_by_line_and_byte(tmp_path: Path, name: str) -> None:
    message = refusal(written(tmp_path / name, b'"ok"\n"caf\xe9"\n'))
    if name == "a.jsonl":  # the first line is read, and refused, before the second is decoded
        message = refusal(written(tmp_path / name, b'{}  \n"caf\xe9"\n'))
    assert ":2: byte 9 of the file is 0xe9" in message
    assert "save the file as UTF-8" in message
    assert "name its encoding with --encoding" in message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf_16_with_its_byte_order_mark_is_read(tmp_path: Path, encoding: str) -> None:
    mark = b"" if encoding == "utf-16" else b"\xfe\xff"
    content = "question\tresponse\r\nq\t\u00e9\u2028\U0001f600\r\n".encode(encoding)
    path = written(tmp_path / "a.csv", mark + content)
    rows = list(read(path))
    assert [row.fields for row in rows] == [{"question": "q", "response": "\u00e9\u2028\U0001f600"}]
    assert rows[0].where == f"{path}:2"


def test_utf_16_that_breaks_off_is_refused_with_its_line(tmp_path: Path) -> None:
    content = "response\nyes\n".encode("utf-16") + b"\x00\xd8\x0a"
    assert "not UTF-16: unexpected end" in refusal(written(tmp_path / "a.csv", content))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_nul_bytes_are_refused_with_their_line(tmp_path: Path, name: str) -> None:
    content = "response\nyes\n".encode("utf-32-le")
    assert ":1: a NUL byte, which is not text" in refusal(written(tmp_path / name, content))


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_line_that_never_ends_is_refused_before_it_fills_the_memory(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("response_tuning.text_lines.LINE_LIMIT", 2**20)
    with (tmp_path / name).open("wb") as sparse:
        sparse.truncate(2**40)
    assert ":1: a line of more than 1 MiB" in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("start", "format_"),
    [(b"\x1f\x8b\x08", "gzip"), (b"PK\x03\x04", "Excel workbook"), (b"PAR1", "Parquet")],
)
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_file_of_another_format_than_its_name_says_is_refused(
    tmp_path: Path, name: str, start: bytes, format_: str
) -> None:
    assert format_ in refusal(written(tmp_path / name, start + b"rest"))


def test_a_json_file_that_is_too_large_to_be_read_whole_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as sparse:
        sparse.truncate(3 * 2**30)
    assert "3.0 GiB, and a .json file is read as a whole" in refusal(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.txt"])
def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(DataError) as error:
            list(read_texts([path]) if path.suffix == ".txt" else read(path))
        assert "\n" not in str(error.value)
        return str(error.value)

    os.mkfifo(tmp_path / name)
    assert "a named pipe, not a file" in refused(tmp_path / name)
    for kind, target in [("device", Path("/dev/zero")), ("folder", tmp_path), ("loop", None)]:
        path = tmp_path / kind / name
        path.parent.mkdir()
        path.symlink_to(target or path)
        wanted = f"a {kind}, not a file" if target else "cannot be read: Too many levels"
        assert wanted in refused(path)
    socket_path = Path(tempfile.mkdtemp(dir="/tmp"), name)  # its name has to be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(socket_path))
        assert "a socket, not a file" in refused(socket_path)
    shutil.rmtree(socket_path.parent)


def test_csv_cells_may_hold_commas_quotes_and_line_breaks(tmp_path: Path) -> None:
    text = 'first,\r\nsecond "quoted"\n\nthird'
    quoted = text.replace('"', '""')
    path = written(tmp_path / "a.csv", f'question,response\r\nq,"{quoted}"\r\nr,plain\r\n')
    rows = list(read(path))
    assert [row.fields["response"] for row in rows] == [text.replace("\r\n", "\n"), "plain"]
    assert [row.where for row in rows] == [f"{path}:2", f"{path}:6"]


@pytest.mark.parametrize(("separator", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_csv_as_excel_writes_it_elsewhere_is_read(
    tmp_path: Path, separator: str, name: str
) -> None:
    text = f'at nine, {separator} "or so"\r\nat ten'
    quoted = text.replace('"', '""')
    content = f'question{separator}response\r\n3,5{separator}"{quoted}"\r\n'
    for first, line in (("", 2), (f"sep={separator}\r\n", 3)):
        path = written(tmp_path / "a.csv", f"\ufeff{first}{content}")
        (row,) = read(path)
        assert row.fields == {"question": "3,5", "response": text.replace("\r\n", "\n")}
        assert row.where == f"{path}:{line}"
    message = refusal(written(tmp_path / "a.csv", f"{content}1{separator}2{separator}3\r\n"))
    assert f":4: 3 cells between {name}, but the header has 2 columns" in message


def test_a_csv_cell_may_be_longer_than_the_csv_modules_limit(tmp_path: Path) -> None:
    text = "x" * 200_000
    rows = list(read(written(tmp_path / "a.csv", f"response\n{text}\n")))
    assert rows[0].fields["response"] == text


@pytest.mark.parametrize("row", ["1", "1,2,3"])
def test_a_ragged_csv_row_is_refused_with_its_line(tmp_path: Path, row: str) -> None:
    message = refusal(written(tmp_path / "a.csv", f"a,b\n1,2\n{row}\n"))
    assert ":3: " in message
    assert "the header has 2 columns" in message


@pytest.mark.parametrize("row", ['"open', '"shut"x'])
def test_broken_csv_quotes_are_refused_with_their_line(tmp_path: Path, row: str) -> None:
    message = refusal(written(tmp_path / "a.csv", f"a\nfine\n{row}\n"))
    assert ":3: not CSV" in message


def test_a_repeated_csv_column_is_refused(tmp_path: Path) -> None:
    assert "two columns are called 'a'" in refusal(written(tmp_path / "a.csv", "a,b,a\n1,2,3\n"))


def test_a_blank_line_of_csv_is_a_row_with_a_fault(tmp_path: Path) -> None:
    rows = read(written(tmp_path / "a.csv", "a\n1\n\n2\n"))
    assert [row.fault for row in rows] == ["", "blank line", ""]


def test_parquet_rows_are_numbered_across_batches(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    count = 2 * BATCH_ROWS + 1
    messages = [[{"role": "assistant", "content": str(i)}] for i in range(count)]
    pq.write_table(pa.table({"messages": messages}), path)
    rows = list(read(path))
    assert [row.fields["messages"] for row in rows] == messages
    assert rows[-1].where == f"{path}: record {count}"


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", "response\nyes\n")
    assert "cannot be read as Parquet" in refusal(path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    assert "No such file" in refusal(tmp_path / name)


def test_a_text_file_is_one_row_without_the_end_of_its_last_line(tmp_path: Path) -> None:
    contents = [" a\r\n\nb \n", "# b", "a\r\nb\r\n", "a\n\n", "a\rb\r", "\r\n", ""]
    texts = [written(tmp_path / f"{n}.txt", content) for n, content in enumerate(contents)]
    read_as = [" a\n\nb ", "# b", "a\nb", "a\n", "a\nb", "", ""]
    assert [row.fields["text"] for row in read_texts(texts)] == read_as


def test_a_file_between_texts_that_is_no_text_is_a_row_with_a_fault(tmp_path: Path) -> None:
    rows = list(read_texts([written(tmp_path / "a.pdf", b"%PDF\xff")]))
    assert [(row.where, row.fault) for row in rows] == [
        (str(tmp_path / "a.pdf"), "not a .txt or .md file")
    ]


def test_a_text_of_windows_is_read_and_one_in_no_known_encoding_refused(tmp_path: Path) -> None:
    (row,) = read_texts([written(tmp_path / "a.txt", b"ok\ncaf\xe9")])
    assert row.fields["text"] == "ok\ncaf\xe9"
    with pytest.raises(DataError, match=r"a\.txt: byte 6 is not UTF-8, and no encoding fits"):
        list(read_texts([written(tmp_path / "a.txt", b"ok\ncaf\x81\xaa")]))


def test_a_missing_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        list(read_texts([tmp_path / "a.txt"]))


def nested(depth: int) -> object:
    value: object = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    ["x" * 1000, ["x" * 1000], "\n" * 1000, nested(100_000), 10**5000],
    ids=["text", "list", "line-feeds", "nested", "digits"],
)
def test_a_value_is_shown_on_one_short_line(value: object) -> None:
    assert len(shown(value)) <= 60
    assert "\n" not in shown(value)


def test_a_text_with_windows_line_ends_never_ends_in_a_carriage_return(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "a\r\n\r\nb\r\n\r\n")
    assert [row.fields["text"] for row in read_texts([path])] == ["a\n\nb\n"]


@pytest.mark.parametrize(
    "row", ['{"a": 1, "b": 2, "a": 3}', '{"m": [{"b": 0}, {"a": "x", "a": "y"}]}']
)
def test_a_repeated_key_is_refused_with_its_line(tmp_path: Path, row: str) -> None:
    message = refusal(written(tmp_path / "a.jsonl", f'{{"a": 1}}\n{row}\n'))
    assert message.endswith("a.jsonl:2: an object has the key 'a' twice; remove one")
    message = refusal(written(tmp_path / "a.json", f'\n[{{"a": 1}},\n\n{row}]\n'))
    assert message.endswith("a.json:4: an object has the key 'a' twice; remove one")
    assert ":1: an object has the key" in refusal(written(tmp_path / "b.json", row))
