import errno
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from response_tuning import artifacts
from response_tuning.artifacts import (
    Audit,
    Completion,
    Dropped,
    Example,
    Message,
    Record,
    Request,
    Sampling,
    append_record,
    digest,
    file_digest,
    mend_journal,
    package_versions,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
    written_aside,
)
from response_tuning.errors import DataError

ASKED = (Message(role="user", content="Why?"),)
RECORDS = [
    ASKED[0],
    Example(row=0, response="So."),
    Dropped(row=0, reason="empty response"),
    Audit(rows=1, rows_kept=1, examples=1, dropped={}),
    Sampling(),
    Request(item_id="0", prompt=ASKED),
    Completion(
        item_id="0",
        prompt=ASKED,
        response="So.",
        finish_reason="stop",
        key="0",
        model="m",
        template="t",
        sampling=Sampling(),
    ),
]
RAISES_INSIDE: list[type[BaseException]] = [ValueError, KeyboardInterrupt]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_is_closed_and_frozen(record: Record) -> None:
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        type(record).model_validate({**record.model_dump(), "more": 1})
    with pytest.raises(ValidationError, match="frozen"):
        setattr(record, next(iter(type(record).model_fields)), None)


def test_a_role_is_one_of_three() -> None:
    with pytest.raises(ValidationError, match="'system', 'user' or 'assistant'"):
        Message.model_validate({"role": "tool", "content": ""})


def test_any_text_comes_back_from_its_one_line(tmp_path: Path) -> None:
    texts = ["a\nb\r\nc", "\r", "\u2028\u2029\x85\x0b\x0c\x1e", "🙂 naïve", "\x00\ufeff", "", " "]
    examples = [Example(row=i, response=text) for i, text in enumerate(texts)]
    assert write_jsonl(tmp_path / "x.jsonl", examples) == len(texts)
    assert (tmp_path / "x.jsonl").read_bytes().count(b"\n") == len(texts)
    assert list(read_jsonl(tmp_path / "x.jsonl", Example)) == examples


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"row": 1}', "response: Field required"),
        (b'{"row": "x", "response": ""}', "row: Input should be a valid integer"),
        (b'{"row": 1, "response": "", "extra": 1}', "extra: Extra inputs are not permitted"),
        (b'{"row": 1, "respo', "Invalid JSON"),
        (b'{"row": 1, "response": "\xff"}', "Invalid JSON"),
        (b"", "Invalid JSON"),
    ],
)
def test_a_line_that_is_no_record_is_named_with_file_and_line(
    tmp_path: Path, line: bytes, said: str
) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_bytes(b'{"row": 0, "response": "a"}\n' + line + b"\n")
    records = read_jsonl(path, Example)
    assert next(records).response == "a"
    with pytest.raises(DataError) as error:
        next(records)
    assert str(error.value).startswith(f"{path}:2: not a Example: {said}")
    assert "\n" not in str(error.value)


def test_a_file_of_records_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be read: No such file"):
        next(read_jsonl(tmp_path / "none.jsonl", Example))


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read"), ("{", "cannot be read as JSON"), ("[]", "JSON object, found list")],
)
def test_a_json_file_that_is_no_object_is_named(
    tmp_path: Path, content: str | None, said: str
) -> None:
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=rf"manifest\.json: .*{said}"):
        read_json(path)


def test_json_is_written_for_people_to_read(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "m.json", {"name": "naïve"})
    assert (tmp_path / "new" / "m.json").read_bytes() == '{\n  "name": "naïve"\n}\n'.encode()
    assert read_json(tmp_path / "new" / "m.json") == {"name": "naïve"}


@pytest.mark.parametrize("before", [None, "old"])
@pytest.mark.parametrize("raised", RAISES_INSIDE)
def test_a_block_that_raises_leaves_the_file_as_it_was(
    tmp_path: Path, before: str | None, raised: type[BaseException]
) -> None:
    path = tmp_path / "x.txt"
    if before is not None:
        path.write_text(before)
    with pytest.raises(raised), written_aside(path) as out:
        out.write("half of ")
        out.flush()
        raise raised
    assert [file.name for file in tmp_path.iterdir()] == ([] if before is None else ["x.txt"])
    assert before is None or path.read_text() == before


def test_a_file_appears_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.txt"
    with written_aside(path) as out:
        out.write("a\r\nb\n")
        assert not path.exists()
    assert [file.name for file in path.parent.iterdir()] == ["x.txt"]
    assert path.read_bytes() == b"a\r\nb\n"


def test_records_that_cannot_be_written_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(UnicodeError):
        write_json(tmp_path / "x.json", "half a pair \ud800")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("found", "mended"),
    [(b"", b""), (b"a\nb\n", b"a\nb\n"), (b'a\n{"b', b"a\n"), (b"torn", b""), (b"\n\xff", b"\n")],
)
def test_a_journal_keeps_its_whole_lines(tmp_path: Path, found: bytes, mended: bytes) -> None:
    journal = tmp_path / "journal"
    journal.write_bytes(found)
    mend_journal(journal)
    assert journal.read_bytes() == mended


def test_a_record_that_a_full_disk_cuts_off_is_an_error_with_the_journals_name(
    tmp_path: Path,
) -> None:
    class Full(FileIO):
        def write(self, line: object) -> int:
            assert isinstance(line, bytes)
            return super().write(line[:5])

    path = tmp_path / "journal"
    with FileIO(path, "a") as journal:
        append_record(journal, ASKED[0])
    with Full(path, "a") as journal, pytest.raises(OSError, match="journal") as error:
        append_record(journal, ASKED[0])
    assert error.value.errno == errno.ENOSPC
    mend_journal(path)
    assert [*read_jsonl(path, Message)] == [ASKED[0]]


def test_a_journal_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    mend_journal(tmp_path / "journal")
    assert not (tmp_path / "journal").exists()


PARTS = st.lists(st.text('",\\ a\x00\ud800', max_size=4), max_size=4)


@given(PARTS, PARTS)
def test_digests_are_equal_only_where_all_parts_are(first: list[str], second: list[str]) -> None:
    assert (digest(*first) == digest(*second)) == (first == second)


def test_digests_stay_the_same_from_version_to_version(tmp_path: Path) -> None:
    # Journals and finished runs are recognised by them.
    assert digest("model", "prompt") == "10a1d9b4ddef7910"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.txt").write_bytes(b"x")
    assert file_digest(tmp_path / "a" / "b.txt")[:16] == "2d711642b726b044"
    assert file_digest(tmp_path)[:16] == "62b763953daaa017"


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "a.txt").write_text("other"),
        lambda folder: (folder / "a.txt").rename(folder / "c.txt"),
        lambda folder: (folder / "in" / "b.txt").rename(folder / "b.txt"),
        lambda folder: (folder / "in" / "b.txt").unlink(),
        lambda folder: (folder / "new").touch(),
    ],
    ids=["content", "name", "place", "gone", "new"],
)
def test_a_folder_is_another_when_a_file_of_it_is(
    tmp_path: Path, change: Callable[[Path], object]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "in" / "b.txt").write_text("b")
    before = file_digest(tmp_path)
    change(tmp_path)
    assert file_digest(tmp_path) != before


def test_what_is_hidden_in_a_folder_is_no_part_of_it(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "model"  # hidden itself, which is another matter
    (folder / "in").mkdir(parents=True)
    (folder / "in" / "a.txt").write_text("a")
    before = file_digest(folder)
    for hidden in (".git/HEAD", ".DS_Store", "in/.ipynb_checkpoints/a.txt"):
        (folder / hidden).parent.mkdir(exist_ok=True)
        (folder / hidden).touch()
    assert file_digest(folder) == before
    (folder / "in" / "a.txt").write_text("b")
    assert file_digest(folder) != before


def test_a_link_counts_as_the_file_that_it_leads_to(tmp_path: Path) -> None:
    for name in ("blobs", "real", "linked"):
        (tmp_path / name).mkdir()
    (tmp_path / "blobs" / "0").write_text("a")
    (tmp_path / "real" / "a.txt").write_text("a")
    (tmp_path / "linked" / "a.txt").symlink_to(tmp_path / "blobs" / "0")
    assert file_digest(tmp_path / "linked") == file_digest(tmp_path / "real")


def test_nothing_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        file_digest(tmp_path / "none")


def test_versions_are_recorded_of_what_is_installed_and_of_what_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(artifacts, "PACKAGES", ("pytest", "no-such-package"))
    assert package_versions() == {
        "pytest": pytest.__version__,
        "no-such-package": "not installed",
    }
