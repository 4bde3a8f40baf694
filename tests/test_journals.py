import errno
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest

from response_tuning import journals
from response_tuning.artifacts import SCHEMA, Message
from response_tuning.errors import ConfigError, DataError
from response_tuning.journals import Journal, cut_torn_line

SAID = [Message(role="user", content=text) for text in ("one", "two\u2028lines", "three")]


def kept(path: Path, *records: Message) -> Journal[Message]:
    journal = Journal(path, Message)
    with journal.appending() as append:
        for record in records:
            append(record)
    return journal


def test_records_come_back_in_their_order_after_any_number_of_openings(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal"
    for record in SAID:
        kept(path, record)
    assert [*Journal(path, Message)] == SAID
    assert len(Journal(path, Message)) == 3
    assert json.loads(path.read_bytes().split(b"\n")[0]) == {"journal": "Message", "schema": SCHEMA}


def test_records_are_read_again_at_their_places_in_any_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", Message)
    with journal.appending() as append:
        places = [append(record) for record in SAID[:2]]
    with journal.appending() as append:
        places.append(append(SAID[2]))
    assert [*journal.placed()] == [*zip(places, SAID, strict=True)]
    assert [*journal.at(reversed(places))] == SAID[::-1]
    with pytest.raises(DataError, match="byte 5: is no longer what was written"):
        [*journal.at([5])]


def test_a_journal_that_is_not_there_is_empty_and_is_not_made(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", Message)
    assert ([*journal], len(journal)) == ([], 0)
    assert not [*tmp_path.iterdir()]


def test_a_journal_cut_anywhere_goes_on_with_its_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    kept(path, *SAID)
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        survivors = whole[:end].count(b"\n") - 1
        assert [*Journal(path, Message)] == SAID[: max(survivors, 0)]
        kept(path, *SAID[max(survivors, 0) :])
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "content",
    [b"my own notes", b"my own notes\n", b'{"journal": "Completion", "schema": 1}\n', b"\n", b"{}"],
)
def test_a_file_of_the_users_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "q.jsonl.journal"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not a journal of Message records that rtune wrote"):
        Journal(path, Message)
    assert path.read_bytes() == content


def test_a_journal_of_the_first_versions_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text(SAID[0].model_dump_json() + "\n" + SAID[1].model_dump_json()[:9])
    assert [*kept(path, SAID[2])] == [SAID[0], SAID[2]]
    assert len(Journal(path, Message)) == 2


def test_a_journal_of_a_later_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text(json.dumps({"journal": "Message", "schema": SCHEMA + 1}) + "\n")
    with pytest.raises(DataError, match="upgrade"):
        Journal(path, Message)


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    kept(path, *SAID)
    path.write_bytes(path.read_bytes().replace(b'"role"', b'"roll"', 1))
    with pytest.raises(DataError, match=r"journal:2: is no longer what was written; delete this"):
        [*Journal(path, Message)]


def test_a_flipped_bit_anywhere_in_a_record_is_found(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    kept(path, SAID[0])
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for place in range(start, len(whole) - 1):
        for bit in range(8):
            changed = bytes([whole[place] ^ (1 << bit)])
            path.write_bytes(whole[:place] + changed + whole[place + 1 :])
            with pytest.raises(DataError):
                assert [*Journal(path, Message)] == SAID[:1]


def test_a_place_that_must_not_be_written_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="not a regular file"):
        Journal(tmp_path / "fifo", Message)


def test_a_record_that_a_full_disk_cuts_off_is_an_error_and_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    kept(path, SAID[0])

    class Full(io.FileIO):
        def write(self, line: Any) -> int:
            return super().write(line[:5])

    def full(out: io.FileIO, line: bytes) -> None:
        with Full(path, "a") as cut:
            write(cut, line)

    write = journals._write
    monkeypatch.setattr(journals, "_write", full)
    with pytest.raises(OSError, match="journal") as error:
        kept(path, SAID[1])
    assert error.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert [*Journal(path, Message)] == [SAID[0]]


@pytest.mark.parametrize(
    ("found", "mended"),
    [(b"", b""), (b"a\nb\n", b"a\nb\n"), (b'a\n{"b', b"a\n"), (b"torn", b""), (b"\n\xff", b"\n")],
)
def test_a_torn_line_is_cut_off(tmp_path: Path, found: bytes, mended: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    cut_torn_line(path)
    assert not path.exists()
    path.write_bytes(found)
    cut_torn_line(path)
    assert path.read_bytes() == mended


def test_a_long_torn_line_is_cut_off_too(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"a\n" + b"x" * 200_000)
    cut_torn_line(path)
    assert path.read_bytes() == b"a\n"
