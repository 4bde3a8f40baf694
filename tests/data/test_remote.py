import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from response_tuning.artifacts import Dropped, Example, read_json, read_jsonl
from response_tuning.configs import DataConfig
from response_tuning.data import origin_at, pieces, prepare
from response_tuning.data.remote import RemoteFiles
from response_tuning.errors import ConfigError, DataError


@pytest.fixture
def storage() -> Iterator[Any]:
    """Object storage in memory."""
    system = fsspec.filesystem("memory")
    yield system
    system.rm("/tea", recursive=True)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder of Parquet shards, as the hub has them."""
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard in range(3):
        rows = [{"prompt": f"q{shard}", "response": f"r{shard}.{n}"} for n in range(20)]
        name = f"train-{shard:05}-of-00003.parquet"
        pq.write_table(pa.Table.from_pylist(rows), folder / name, row_group_size=5)
    other = pa.Table.from_pylist([{"prompt": "q", "response": "held out"}])
    pq.write_table(other, folder / "test-00000-of-00001.parquet")
    (folder / "README.md").write_text("About tea.")
    return folder


def put(storage: Any, shards: Path) -> None:
    storage.put(f"{shards}/", "/tea/", recursive=True)


def test_shards_at_an_address_give_the_examples_of_the_local_folder(
    storage: Any, shards: Path, tmp_path: Path
) -> None:
    put(storage, shards)
    prepare(DataConfig(source=str(shards)), tmp_path / "local")
    for number, address in enumerate(("memory://tea", "memory://tea/train-*.parquet")):
        out = tmp_path / str(number)
        audit = prepare(DataConfig(source=address), out)
        assert audit.examples == 60
        local = (tmp_path / "local" / "examples.jsonl").read_bytes()
        assert (out / "examples.jsonl").read_bytes() == local
        origin = read_json(out / "audit.json")["source"]
        assert (origin["address"], origin["files"]) == (address, 3)
    held_out = tmp_path / "test"
    prepare(DataConfig(source="memory://tea", split="test"), held_out)
    assert [example.response for example in read_jsonl(held_out / "examples.jsonl", Example)] == [
        "held out"
    ]


def test_several_processes_read_shards_at_an_address(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DataConfig(source=f"file://{shards}")
    monkeypatch.setattr(pieces, "PIECE_BYTES", 400)  # several row groups are a piece
    assert len(RemoteFiles.find(config.source, "train").pieces()) > 3
    for processes in (1, 2):
        prepare(config, tmp_path / str(processes), processes=processes)
    for name in ("examples.jsonl", "dropped.jsonl", "audit.json"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_lines_at_an_address_are_named_like_those_of_a_file(storage: Any, tmp_path: Path) -> None:
    rows = [json.dumps({"response": text}, ensure_ascii=False) for text in ("grün\u2028", "", "b")]
    storage.pipe_file("/tea/a.jsonl", "\n".join(rows).encode())
    prepare(DataConfig(source="memory://tea/a.jsonl"), tmp_path / "out")
    dropped = list(read_jsonl(tmp_path / "out" / "dropped.jsonl", Dropped))
    assert [(one.where, one.reason) for one in dropped] == [
        ("memory:///tea/a.jsonl:2", "empty response")
    ]
    storage.pipe_file("/tea/a.jsonl", b'{"response": "a"}\n{')
    with pytest.raises(DataError, match=r"memory:///tea/a.jsonl:2: not JSON"):
        prepare(DataConfig(source="memory://tea/a.jsonl"), tmp_path / "other")


def test_the_origin_changes_with_the_files(storage: Any, shards: Path) -> None:
    put(storage, shards)
    before = origin_at("memory://tea", "train")
    assert origin_at("memory://tea", "train") == before
    storage.pipe_file("/tea/train-00000-of-00003.parquet", b"other")
    assert origin_at("memory://tea", "train") != before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "memory://tea/none"}, "no .parquet, .jsonl, .ndjson file"),
        ({"source": "memory://tea", "split": "validation"}, "of the split 'validation'"),
        ({"source": "memory://tea", "encoding": "cp1252"}, "--encoding has no effect"),
        ({"source": "memory://tea", "revision": "v1"}, "hf://datasets/OWNER/NAME@REVISION"),
        ({"source": "nowhere://tea"}, "'nowhere' cannot be opened"),
    ],
)
def test_what_an_address_does_not_have_is_one_line(
    storage: Any, shards: Path, tmp_path: Path, settings: dict[str, str], message: str
) -> None:
    put(storage, shards)
    with pytest.raises((ConfigError, DataError)) as raised:
        prepare(DataConfig.model_validate(settings), tmp_path / "out")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_damaged_shard_is_one_line(storage: Any, tmp_path: Path) -> None:
    storage.pipe_file("/tea/a.parquet", b"PAR1 and nothing else")
    with pytest.raises(DataError, match=r"memory:///tea/a.parquet: cannot be read as Parquet"):
        prepare(DataConfig(source="memory://tea/a.parquet"), tmp_path / "out")
