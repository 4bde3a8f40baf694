import json
from pathlib import Path
from typing import NoReturn

import pytest

from response_tuning.artifacts import write_json
from response_tuning.configs import DataConfig
from response_tuning.errors import ConfigError
from response_tuning.pipeline import run_data


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"response": "Yes."}\n')
    return path


@pytest.fixture
def declined(tmp_path: Path) -> Path:
    path = tmp_path / "declined.jsonl"
    path.write_text('{"response": "No."}\n')
    return path


@pytest.fixture
def config(answers: Path, declined: Path) -> DataConfig:
    return DataConfig(source=str(answers), refusals=1, refusal_source=str(declined))


def responses(out: Path) -> list[str]:
    lines = (out / "examples.jsonl").read_text().splitlines()
    return [json.loads(line)["response"] for line in lines]


def crash(*_: object) -> NoReturn:
    raise AssertionError


def test_what_is_prepared_is_not_prepared_again(
    config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_data(config, tmp_path / "data")
    assert responses(tmp_path / "data") == ["Yes.", "No."]
    monkeypatch.setattr("response_tuning.data.prepare", crash)
    run_data(config, tmp_path / "data")
    with pytest.raises(AssertionError):
        run_data(config.model_copy(update={"seed": 1}), tmp_path / "data")


@pytest.mark.parametrize("changed", ["answers", "declined"])
def test_a_file_that_has_changed_is_prepared_again(
    changed: str, config: DataConfig, tmp_path: Path
) -> None:
    run_data(config, tmp_path / "data")
    (tmp_path / f"{changed}.jsonl").write_text('{"response": "Perhaps."}\n')
    run_data(config, tmp_path / "data")
    assert responses(tmp_path / "data").count("Perhaps.") == 1


def test_a_file_that_is_gone_leaves_what_was_prepared(
    config: DataConfig, answers: Path, tmp_path: Path
) -> None:
    run_data(config, tmp_path / "data")
    answers.unlink()
    run_data(config, tmp_path / "data")
    assert responses(tmp_path / "data") == ["Yes.", "No."]


def test_a_folder_named_as_a_made_dataset_is_not_mistaken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "miniature").mkdir()
    config = DataConfig(source="miniature", max_examples=3)
    run_data(config, tmp_path / "data")
    assert len(responses(tmp_path / "data")) == 3
    monkeypatch.setattr("response_tuning.data.prepare", crash)
    run_data(config, tmp_path / "data")


@pytest.mark.parametrize("manifest", ["manifest.json", "finetune/manifest.json"])
def test_the_data_of_a_model_is_never_replaced(
    manifest: str, config: DataConfig, tmp_path: Path
) -> None:
    cell = tmp_path / "cell"
    run_data(config, cell / "data")
    write_json(cell / manifest, {})
    before = (cell / "data" / "audit.json").read_bytes()
    with pytest.raises(ConfigError, match="holds a run on other data; choose another --out"):
        run_data(config.model_copy(update={"refusals": 0}), cell / "data")
    assert (cell / "data" / "audit.json").read_bytes() == before
    run_data(config, cell / "data")
