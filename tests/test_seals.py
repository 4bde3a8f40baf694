import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from response_tuning import seals


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "sealed"
    (folder / "inside").mkdir(parents=True)
    (folder / "a.bin").write_bytes(bytes(range(200)))
    (folder / "inside" / "b.json").write_text('{"step": 2}')
    seals.seal(folder, run="r1")
    return folder


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def edit(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"2", b"3"))


def test_a_folder_that_is_as_it_was_has_no_flaw_and_says_what_it_is_of(folder: Path) -> None:
    flaw, about = seals.flaw_of_sealed(folder)
    assert flaw == ""
    assert about["run"] == "r1"
    assert about["files"]["a.bin"] == {
        "bytes": 200,
        "sha256": "1901da1c9f699b48f6b2636e65cbf73abf99d0441ef67f5c540a42f7051dec6f",
    }
    assert [*about["files"]] == ["a.bin", "inside/b.json"]


@pytest.mark.parametrize("name", ["a.bin", "inside/b.json"])
@pytest.mark.parametrize("change", [flip, cut, edit, Path.unlink])
def test_a_file_that_is_not_what_was_written_is_named(
    folder: Path, name: str, change: Callable[[Path], None]
) -> None:
    change(folder / name)
    said = {
        Path.unlink: "is gone",
        cut: "bytes and was written with",
    }.get(change, "is no longer what was written")
    flaw, _ = seals.flaw_of_sealed(folder)
    assert flaw.startswith(f"{name} ")
    assert said in flaw


@pytest.mark.parametrize("change", [flip, cut, edit, Path.touch], ids=str)
def test_a_seal_that_is_damaged_is_a_flaw(folder: Path, change: Callable[[Path], None]) -> None:
    seal = folder / seals.SEAL
    if change is Path.touch:
        seal.write_bytes(b"")  # as the first versions left it
    elif change is edit:
        content = json.loads(seal.read_text()) | {"run": "r2"}
        seal.write_text(json.dumps(content))
    else:
        change(seal)
    flaw, _ = seals.flaw_of_sealed(folder)
    assert flaw.startswith("complete ")


def test_a_seal_covers_named_files_alone_if_some_are_named(folder: Path) -> None:
    seals.seal(folder, ["a.bin"])
    (folder / "inside" / "b.json").unlink()
    assert seals.flaw_of_sealed(folder)[0] == ""


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_what_a_library_says_of_a_full_disk_is_said_with_the_folder_and_leaves_nothing(
    folder: Path, error: Exception
) -> None:
    with pytest.raises(OSError, match="No space left") as refused, seals.saving(folder):
        raise error
    assert refused.value.errno == errno.ENOSPC
    assert refused.value.filename == str(folder)
    assert not folder.exists()


def test_an_error_that_says_nothing_of_the_disk_is_asked_of_the_disk(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_full(path: Path, *args: object, **kwargs: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), str(path))

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(OSError, match="quota exceeded") as refused, seals.saving(folder):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")
    assert refused.value.filename == str(folder)


def test_a_bug_keeps_its_own_error_where_the_disk_has_room(folder: Path) -> None:
    with pytest.raises(RuntimeError, match="a bug"), seals.saving(folder):
        raise RuntimeError("a bug")
    assert not folder.exists()
