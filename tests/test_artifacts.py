import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from response_tuning import artifacts
from response_tuning.artifacts import (
    SCHEMA,
    Audit,
    Completion,
    Dropped,
    Example,
    Message,
    Record,
    Request,
    Sampling,
    digest,
    file_digest,
    keeping,
    package_versions,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
    written_aside,
)
from response_tuning.errors import ConfigError, DataError

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
    assert (tmp_path / "new" / "m.json").read_bytes() == (
        '{\n  "schema": 1,\n  "name": "naïve"\n}\n'.encode()
    )
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


def test_an_object_says_its_schema_version_and_a_later_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    write_json(path, {"rows": 1})
    assert json.loads(path.read_text()) == {"schema": SCHEMA, "rows": 1}
    assert read_json(path, "rows") == {"rows": 1}
    path.write_text(json.dumps({"schema": SCHEMA + 1, "rows": 1}))
    with pytest.raises(DataError, match=r"manifest\.json: has schema version 2.*upgrade"):
        read_json(path)


def test_a_key_that_is_relied_on_and_absent_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text('{"experiment": {}}')
    assert read_json(path) == {"experiment": {}}  # the first versions wrote no schema
    with pytest.raises(DataError, match=r"manifest\.json: holds no 'settings': written by another"):
        read_json(path, "experiment", "settings")


def test_what_a_command_reads_is_not_written_over(tmp_path: Path) -> None:
    read = tmp_path / "answers.jsonl"
    read.write_text("a\n")
    (tmp_path / "base").mkdir()
    (tmp_path / "link.jsonl").symlink_to(read)
    with keeping([read, tmp_path / "base"]):
        for path in (read, tmp_path / "link.jsonl", tmp_path / "base/x.json", tmp_path / "base"):
            with pytest.raises(ConfigError, match="which this command reads"):
                write_json(path, {})
        write_json(tmp_path / "other.json", {})
    assert read.read_text() == "a\n"
    write_json(read, {})


def test_only_a_regular_file_is_replaced(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (fifo, Path("/dev/null"), tmp_path):
        with pytest.raises(ConfigError, match="choose the name of a new file"):
            write_json(path, {})
    assert fifo.is_fifo()


def test_a_symlink_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "out.json"
    link.symlink_to(tmp_path / "elsewhere" / "real.json")
    write_json(link, [1])
    assert link.is_symlink()
    assert json.loads((tmp_path / "elsewhere" / "real.json").read_text()) == [1]


@pytest.mark.parametrize(
    "setting",
    [
        {"temperature": float("nan")},
        {"temperature": -1},
        {"top_p": 0},
        {"top_p": 1.5},
        {"seed": -1},
        {"max_new_tokens": 0},
        {"stop": ("",)},
    ],
    ids=str,
)
def test_an_impossible_sampling_is_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Sampling.model_validate(setting)


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
