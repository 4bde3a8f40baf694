import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from response_tuning.artifacts import Audit, Dropped, Example, read_json
from response_tuning.configs import DataConfig
from response_tuning.data import prepare
from response_tuning.errors import DataError

Prepare = Callable[..., tuple[Audit, list[Example], list[Dropped]]]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the hub: ``hub/org/name`` is the dataset ``org/name``."""
    import datasets
    from huggingface_hub import HfApi

    folder = tmp_path / "hub"
    really_load = datasets.load_dataset

    def dataset_info(_: HfApi, repo_id: str, *, revision: str) -> SimpleNamespace:
        assert (folder / repo_id).is_dir()
        assert revision == "v1"
        return SimpleNamespace(sha=COMMIT)

    def load_dataset(path: str, name: str | None, *, revision: str, split: str) -> object:
        assert (name, revision) == (None, COMMIT)
        # As the real one does, a folder of that name is preferred unless the prefix forbids it.
        local = Path(path) if Path(path).is_dir() else folder / path.removeprefix("hf://datasets/")
        return really_load(str(local), split=split, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    datasets.disable_progress_bars()
    return folder


def put(folder: Path, hub_id: str, rows: list[dict[str, Any]], split: str = "train") -> None:
    path = folder / hub_id / f"{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_hub_dataset_is_read_and_its_commit_recorded(
    hub: Path, tmp_path: Path, prepare_source: Prepare
) -> None:
    rows = [{"messages": [{"role": "assistant", "content": f"r{i}"}]} for i in range(3)]
    put(hub, "org/name", [*rows, {"messages": []}])
    audit, examples, dropped = prepare_source("org/name", revision="v1")
    assert [example.response for example in examples] == ["r0", "r1", "r2"]
    assert [(drop.reason, drop.where) for drop in dropped] == [
        ("no assistant turn", "org/name: record 4")
    ]
    assert audit.rows == 4
    assert read_json(tmp_path / "out" / "audit.json")["source"] == {
        "name": "org/name",
        "hub_id": "org/name",
        "commit": COMMIT,
        "columns": {"response": "messages", "instruction": None, "input": None},
    }


def test_a_split_of_a_hub_dataset_can_be_chosen(hub: Path, prepare_source: Prepare) -> None:
    put(hub, "org/name", [{"response": "train"}])
    put(hub, "org/name", [{"response": "test"}], split="test")
    _, examples, _ = prepare_source("org/name", revision="v1", split="test")
    assert [example.response for example in examples] == ["test"]


def test_a_split_that_is_not_there_is_one_line(hub: Path, prepare_source: Prepare) -> None:
    put(hub, "org/name", [{"response": "train"}])
    with pytest.raises(DataError, match=r"^org/name: cannot be loaded .*--split") as error:
        prepare_source("org/name", revision="v1", split="dev")
    assert "\n" not in str(error.value)


def test_alpaca_on_the_hub_has_inputs(hub: Path, prepare_source: Prepare) -> None:
    rows = [
        {"instruction": "q", "input": "x", "output": "r"},
        {"instruction": "q", "input": "", "output": "r"},
    ]
    put(hub, "yahma/alpaca-cleaned", rows)
    _, examples, _ = prepare_source("alpaca", revision="v1")
    assert [example.instruction for example in examples] == ["q\n\nx", "q"]


def test_dolly_on_the_hub_has_contexts(hub: Path, prepare_source: Prepare) -> None:
    row = {"instruction": "q", "context": "x", "response": "r", "category": "closed_qa"}
    put(hub, "databricks/databricks-dolly-15k", [row])
    _, examples, _ = prepare_source("dolly", revision="v1")
    assert examples == [Example(row=0, instruction="q\n\nx", response="r")]


def test_lima_on_the_hub_is_its_first_thousand_rows_and_first_turns(
    hub: Path, prepare_source: Prepare
) -> None:
    rows = [{"conversations": [f"q{i}", f"r{i}"], "source": "x"} for i in range(1030)]
    rows[7]["conversations"] = ["q7", "r7", "p7", "s7"]
    put(hub, "GAIR/lima", rows)
    audit, examples, _ = prepare_source("lima", revision="v1")
    assert examples == [Example(row=i, instruction=f"q{i}", response=f"r{i}") for i in range(1000)]
    assert audit == Audit(
        rows=1030,
        rows_kept=1000,
        examples=1000,
        dropped={
            "after the first turn, which alone the paper uses": 1,
            "beyond the first 1,000 rows, which the paper uses": 30,
        },
    )


def hub_errors() -> dict[str, tuple[Exception, str]]:
    import httpx2
    from huggingface_hub.errors import GatedRepoError, OfflineModeIsEnabled, RepositoryNotFoundError

    request = httpx2.Request("GET", "https://hub.invalid")
    no = httpx2.Response(403, request=request)
    return {
        "offline": (OfflineModeIsEnabled("offline\nmode"), "use a local copy"),
        "no network": (httpx2.ConnectError("no route"), "check the id, .*network"),
        "not found": (RepositoryNotFoundError("not there", response=no), "check the id"),
        "gated": (GatedRepoError("no", response=no), "accept the licence .* 'hf auth login'"),
    }


@pytest.mark.parametrize("case", ["offline", "no network", "not found", "gated"])
def test_a_hub_that_refuses_is_one_line_with_a_next_step(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    failure, advice = hub_errors()[case]

    def refuse(*_: object, **__: object) -> NoReturn:
        raise failure

    monkeypatch.setattr(HfApi, "dataset_info", refuse)
    with pytest.raises(DataError, match=rf"^GAIR/lima: .*{advice}") as error:
        prepare(DataConfig(source="lima"), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_gated_dataset_whose_card_is_open_is_told_from_a_missing_one(
    hub: Path, prepare_source: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    def refuse(*_: object, **__: object) -> NoReturn:
        message = "Dataset 'GAIR/lima' is a gated dataset on the Hub."
        raise datasets.exceptions.DatasetNotFoundError(message)

    (hub / "GAIR/lima").mkdir(parents=True)
    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match="accept the licence"):
        prepare_source("lima", revision="v1")


def test_a_local_folder_of_the_same_name_is_not_mistaken_for_the_hub(
    hub: Path, tmp_path: Path, prepare_source: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "GAIR/lima", [{"conversations": ["q", "local"]}])
    put(hub, "GAIR/lima", [{"conversations": ["q", "hub"]}])
    monkeypatch.chdir(tmp_path)
    _, examples, _ = prepare_source("lima", revision="v1")
    assert [example.response for example in examples] == ["hub"]


# Datasets that save_to_disk left


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    import datasets

    datasets.disable_progress_bars()
    rows = [{"instruction": f"q{i}", "response": f"r{i}"} for i in range(3)]
    one = datasets.Dataset.from_list(rows)
    one.select([2, 0]).save_to_disk(str(tmp_path / "one"))
    splits = {"train": one, "test": one.select([1])}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "dict"))
    for name in ("one", "dict/train"):
        (tmp_path / name / "cache-0123.arrow").write_bytes(b"stray")
        (tmp_path / name / "README.md").write_text("# About")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "split", "said"),
    [
        ("one", "train", ["r2", "r0"]),
        ("dict", "train", ["r0", "r1", "r2"]),
        ("dict", "test", ["r1"]),
        ("dict/train", "train", ["r0", "r1", "r2"]),
    ],
)
def test_a_folder_saved_to_disk_is_read(
    saved: Path, name: str, split: str, said: list[str], prepare_source: Prepare
) -> None:
    _, examples, _ = prepare_source(saved / name, split=split)
    assert [example.response for example in examples] == said


def test_a_split_that_was_not_saved_is_refused_with_those_that_were(
    saved: Path, prepare_source: Prepare
) -> None:
    with pytest.raises(DataError, match=r"no split 'dev' \(--split\); it has train, test"):
        prepare_source(saved / "dict", split="dev")


@pytest.mark.parametrize("damage", ["missing", "cut", "state", "dict"])
def test_a_damaged_folder_is_one_line(saved: Path, damage: str, prepare_source: Prepare) -> None:
    (arrow,) = (saved / "dict/train").glob("data-*.arrow")
    if damage == "missing":
        arrow.unlink()
    elif damage == "cut":
        arrow.write_bytes(arrow.read_bytes()[:40])
    else:
        name = "train/state.json" if damage == "state" else "dataset_dict.json"
        (saved / "dict" / name).write_text("[")
    with pytest.raises(DataError, match="a folder of save_to_disk, but cannot be loaded") as error:
        prepare_source(saved / "dict")
    assert "\n" not in str(error.value)
