import gc
import os
import pickle
from pathlib import Path

import pytest

from response_tuning.artifacts import Example, Message, write_jsonl
from response_tuning.errors import DataError
from response_tuning.finetune.example_file import BytesOnDisk, ExampleFile

EXAMPLES = [
    Example(row=0, response="one\u2028line\n", instruction="naïve 🙂?"),
    Example(row=1, response=""),
    Example(row=1, turn=1, response="x" * 9000, earlier=(Message(role="user", content="?"),)),
    Example(row=7, response="last"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "examples.jsonl", EXAMPLES)
    return tmp_path / "examples.jsonl"


def test_a_file_of_examples_reads_as_the_list_does_in_order_and_by_position(file: Path) -> None:
    found = ExampleFile(file)
    assert list(found) == EXAMPLES == list(found)
    assert len(found) == len(EXAMPLES)
    for position in (2, 0, 3, 1, 1):
        assert found[position] == EXAMPLES[position]


def test_an_empty_file_holds_no_example(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").touch()
    assert len(ExampleFile(tmp_path / "none.jsonl")) == 0
    assert list(ExampleFile(tmp_path / "none.jsonl")) == []


def test_a_line_that_is_no_example_is_named_however_it_is_reached(file: Path) -> None:
    with file.open("a") as lines:
        lines.write('{"row": 8}\n')
    with pytest.raises(DataError, match=r"examples\.jsonl:5: not a"):
        list(ExampleFile(file))
    with pytest.raises(DataError, match=r"examples\.jsonl:5: not an Example"):
        ExampleFile(file)[4]


def test_bytes_on_disk_are_sliced_like_bytes(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"0123456789")
    content = BytesOnDisk(tmp_path / "b")
    assert [content[2:5], content[0:10], content[9:9], content[0:1]] == [
        b"234",
        b"0123456789",
        b"",
        b"0",
    ]


def test_a_copy_for_another_process_opens_the_file_itself(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"0123456789")
    content = BytesOnDisk(tmp_path / "b")
    copy = pickle.loads(pickle.dumps(content))
    assert copy._descriptor != content._descriptor
    assert copy[3:5] == content[3:5]


def test_a_file_that_is_forgotten_is_closed(tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(b"0123456789")
    content = BytesOnDisk(tmp_path / "b")
    descriptor = content._descriptor
    assert os.fstat(descriptor).st_size == 10
    del content
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
