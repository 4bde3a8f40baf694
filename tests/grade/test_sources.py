from pathlib import Path
from typing import Any, NoReturn

import pytest

from response_tuning.artifacts import file_digest
from response_tuning.configs import GradeConfig
from response_tuning.errors import DataError
from response_tuning.grade.sources import BenchmarkSource, cell, read_source, spread
from response_tuning.readers import Row

SOURCE = BenchmarkSource(benchmark="lines", local="folder/lines.txt", column="prompt")


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "lines.txt"
    path.parent.mkdir()
    path.write_text("one\ntwo, with a comma\nthree\n")
    return path


def test_each_line_of_a_text_file_is_a_row(lines: Path, tmp_path: Path) -> None:
    found = read_source(SOURCE, GradeConfig(data=tmp_path))
    assert [cell(row, "prompt") for row in found.rows] == ["one", "two, with a comma", "three"]
    assert found.rows[1].where == f"{lines}:2"
    assert found.origin == {"path": str(lines), "sha256": file_digest(lines)}


@pytest.mark.parametrize("named", ["folder", "folder/lines.txt"])
def test_a_named_copy_is_a_file_or_a_folder_that_holds_it(
    named: str, lines: Path, tmp_path: Path
) -> None:
    found = read_source(SOURCE, GradeConfig(paths={"lines": tmp_path / named}))
    assert found.origin["path"] == str(lines)


def test_a_blank_line_is_no_row_and_is_named(lines: Path, tmp_path: Path) -> None:
    lines.write_text("one\n\nthree\n")
    with pytest.raises(DataError, match=rf"^{lines}:2: blank line$"):
        read_source(SOURCE, GradeConfig(data=tmp_path))


def test_a_file_of_no_known_kind_is_one_line(lines: Path) -> None:
    other = lines.rename(lines.with_suffix(".xls"))
    with pytest.raises(DataError, match=r"lines.xls: .*known are \.jsonl, .*\.txt") as error:
        read_source(SOURCE, GradeConfig(paths={"lines": other}))
    assert "\n" not in str(error.value)


def test_the_first_column_that_is_there_is_read() -> None:
    row = Row("here", {"prompt": "p", "number": 1})
    assert cell(row, "goal", "prompt") == "p"
    with pytest.raises(DataError, match=r"^here: no column 'goal or text' among 'prompt', 'numb"):
        cell(row, "goal", "text")
    with pytest.raises(DataError, match=r"^here: expected text in 'number', found 1$"):
        cell(row, "number")


def test_a_configuration_of_a_hub_dataset_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[tuple[Any, ...]] = []

    def load(path: str, name: str | None, *, revision: str, split: str) -> datasets.Dataset:
        asked.append((path, name, revision, split))
        return datasets.Dataset.from_list([{"prompt": "p"}])

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(
        "response_tuning.hub.resolve", lambda hub_id, revision, benchmark: f"{revision}!"
    )
    source = BenchmarkSource(
        benchmark="b", local="", hub_id="org/name", split="test", hub_config="standard"
    )
    found = read_source(source, GradeConfig(revisions={"b": "v2"}))
    assert asked == [("hf://datasets/org/name", "standard", "v2!", "test")]
    assert [row.fields for row in found.rows] == [{"prompt": "p"}]
    assert found.origin == {"hub_id": "org/name", "commit": "v2!"}


def test_a_hub_that_cannot_be_reached_names_the_settings_of_the_benchmark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OfflineModeIsEnabled("offline")

    monkeypatch.setattr(HfApi, "dataset_info", refuse)
    source = BenchmarkSource(benchmark="b", local="", hub_id="org/name")
    with pytest.raises(DataError, match=r"grade\.revisions\.b .*--set grade\.paths\.b=FILE\)$"):
        read_source(source, GradeConfig())


@pytest.mark.parametrize(
    ("limit", "kept"), [(None, "abcdefg"), (9, "abcdefg"), (3, "ace"), (1, "a")]
)
def test_a_limit_keeps_items_that_are_evenly_spread(limit: int | None, kept: str) -> None:
    assert spread("abcdefg", limit) == list(kept)
