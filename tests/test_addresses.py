from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import fsspec
import pytest

from response_tuning.addresses import filesystem, is_address, upload
from response_tuning.errors import ConfigError, DataError


@pytest.fixture
def storage() -> Iterator[Any]:
    """Object storage in memory."""
    system = fsspec.filesystem("memory")
    system.mkdir("/jar")
    yield system
    system.rm("/jar", recursive=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("seal", "a", "b"):
        (tmp_path / name).write_text(f"new {name}")
    return tmp_path


def test_an_address_has_a_protocol_and_a_path_has_none() -> None:
    assert is_address("s3://bucket/tea.parquet")
    assert is_address("hf://datasets/OWNER/NAME")
    assert not any(map(is_address, ("tea.jsonl", "OWNER/NAME", "C:\\tea", "/a://b", "")))


def test_an_unknown_protocol_is_one_line_with_the_next_step() -> None:
    with pytest.raises(ConfigError, match=r"'nowhere' cannot be opened: .*; for S3"):
        filesystem("nowhere://tea")


def test_the_seal_is_written_last_and_an_old_one_goes_first(
    storage: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.pipe_file("/jar/seal", b"old seal")
    put, seen = type(storage).put_file, []

    def put_file(self: Any, source: str, target: str) -> None:
        seen.append((Path(target).name, storage.exists("/jar/seal")))
        put(self, source, target)

    monkeypatch.setattr(type(storage), "put_file", put_file)
    upload(folder, "memory://jar/", ["seal", "a", "b"])
    assert seen == [("a", False), ("b", False), ("seal", False)]
    assert storage.cat_file("/jar/seal") == b"new seal"
    upload(folder, "memory://jar", ["seal", "a", "b"])
    assert len(seen) == 3, "what is there is not written again"


def test_a_failed_upload_says_where_the_files_are(
    storage: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> NoReturn:
        raise PermissionError("Access\nDenied")

    monkeypatch.setattr(type(storage), "put_file", refuse)
    with pytest.raises(DataError, match=f"Access Denied; .*; the files are in {folder}$"):
        upload(folder, "memory://jar", ["seal", "a", "b"])
    assert not storage.exists("/jar/seal")


@pytest.mark.parametrize(
    "address", ["s3://me:hunter2@host/tea", "https://host/tea.parquet?signature=hunter2"]
)
def test_an_address_with_a_key_is_refused_and_the_key_is_not_repeated(address: str) -> None:
    with pytest.raises(ConfigError, match="may hold a key") as raised:
        filesystem(address)
    assert "hunter2" not in str(raised.value)
