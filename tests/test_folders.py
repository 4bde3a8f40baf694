import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from response_tuning.artifacts import write_json
from response_tuning.configs import DataConfig, FinetuneConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.folders import MARK, free_folder, locked, locked_file, page_at, shared


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_folder_that_rtune_made_is_used_again(tmp_path: Path) -> None:
    for _ in range(2):
        with locked(tmp_path / "run"):
            (tmp_path / "run/model.safetensors").write_bytes(b"weights")
    assert json.loads((tmp_path / "run" / MARK).read_text())["made_by"] == "response-tuning"


@pytest.mark.parametrize(
    ("name", "content"),
    [("manifest.json", {"settings": {}}), ("audit.json", {"dropped": {}})],
)
def test_so_is_one_of_an_earlier_version(
    tmp_path: Path, name: str, content: Mapping[str, object]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text(json.dumps(content))
    with locked(tmp_path / "run"):
        pass
    assert (tmp_path / "run" / MARK).exists()


@pytest.mark.parametrize("name", ["README.md", "manifest.json", "thesis.tex"])
def test_a_folder_with_files_of_the_users_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    (tmp_path / ".git").mkdir()
    with pytest.raises(ConfigError, match=f"did not make, such as {name}; choose a new"):
        locked(tmp_path).__enter__()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".git", name]


def test_hidden_files_are_no_reason_to_refuse(tmp_path: Path) -> None:
    (tmp_path / ".gitkeep").touch()
    with locked(tmp_path):
        write_json(tmp_path / "x.json", [])
    names = {path.name for path in tmp_path.iterdir()}
    assert {".gitkeep", "x.json", MARK} <= names


def test_an_output_apart_from_its_inputs_is_asked_for(tmp_path: Path, base: Path) -> None:
    made = tmp_path / "run"
    with locked(made):
        (made / "data").mkdir()
        (made / "data/examples.jsonl").touch()
    data = DataConfig(source=str(made / "data/examples.jsonl"))
    with pytest.raises(ConfigError, match=r"examples.jsonl is read from it"):
        locked(made, data).__enter__()
    tuning = FinetuneConfig(base_model=str(base))
    for out, said in ((base, "is read from it"), (base / "tuned", "and would change it")):
        with pytest.raises(ConfigError, match=said):
            locked(out, tuning).__enter__()
    (tmp_path / "link").symlink_to(base)
    with pytest.raises(ConfigError, match="is read from it"):
        locked(tmp_path / "link", tuning).__enter__()
    assert [path.name for path in base.iterdir()] == ["model.safetensors"]


def test_inside_the_block_nothing_is_written_into_an_input(tmp_path: Path, base: Path) -> None:
    with (
        locked(tmp_path / "run", FinetuneConfig(base_model=str(base))),
        pytest.raises(ConfigError, match="which this command reads"),
    ):
        write_json(base / "config.json", {})


def test_a_file_is_not_its_own_input(tmp_path: Path, base: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("{}\n")
    for out in (prompts, base, base / "o.jsonl"):
        with pytest.raises(ConfigError, match=str(out)):
            locked_file(out, prompts, {"model": str(base)}).__enter__()
    with locked_file(tmp_path / "o.jsonl", prompts, {"model": str(base)}) as journal:
        assert journal == tmp_path / "o.jsonl.journal"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "prompts.jsonl"]


def test_a_file_has_one_command_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    with locked_file(out):
        with pytest.raises(ConfigError, match=r"o\.jsonl: another rtune is using it"):
            locked_file(out).__enter__()
        with locked_file(tmp_path / "p.jsonl"):
            pass
    with locked_file(out):
        pass


def test_a_journal_that_was_empty_before_is_left(tmp_path: Path) -> None:
    (tmp_path / "o.jsonl.journal").touch()
    with locked_file(tmp_path / "o.jsonl"):
        pass
    assert (tmp_path / "o.jsonl.journal").exists()


def test_a_file_of_the_users_is_not_replaced(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("My thesis.\n")
    for command in (locked_file(thesis), page_at(thesis)):
        with pytest.raises(ConfigError, match="holds something that rtune did not write"):
            command.__enter__()
    (tmp_path / "scores.jsonl").write_text('{"item_id":"0","metric":"strict","value":1.0}\n')
    (tmp_path / "page.html").write_text("<!DOCTYPE html>\n")
    with locked_file(tmp_path / "scores.jsonl"), page_at(tmp_path / "page.html"):
        pass


def test_a_page_is_not_written_over_what_it_shows(tmp_path: Path) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.touch()
    with pytest.raises(ConfigError, match="which this command reads"):
        page_at(answers, DataConfig(source=str(answers))).__enter__()
    with page_at(None, DataConfig(source=str(answers))):
        pass


def test_a_refused_command_leaves_nothing_but_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for out in (tmp_path / "new" / "run", tmp_path / "there"):
        with pytest.raises(DataError), locked(out):
            (out / "data").mkdir()
            raise DataError("no rows")
    assert not [*(tmp_path / "there").iterdir()]
    assert not (tmp_path / "new").exists()
    with pytest.raises(DataError), locked_file(tmp_path / "new" / "deep" / "o.jsonl"):
        raise DataError("no prompts")
    assert not (tmp_path / "new").exists()


def test_a_file_in_place_of_a_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(ConfigError, match="is no folder"):
        locked(tmp_path / "run").__enter__()
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="is no folder"):
        locked(tmp_path / "fifo").__enter__()


@pytest.mark.parametrize("finished", [True, False])
def test_no_other_command_writes_into_the_folder_of_a_run(tmp_path: Path, finished: bool) -> None:
    run = tmp_path / "run"
    with shared(run):
        with free_folder(run / "rt/seed-0"):
            write_json(run / "rt/seed-0/x.json", [])
        if not finished:
            with pytest.raises(ConfigError, match="run: holds a run of a recipe; choose another"):
                locked(run).__enter__()
    for out, said in ((run, "a run of a recipe"), (run / "rt/seed-0", "a cell of a run")):
        with pytest.raises(ConfigError, match=f"holds {said}; choose another folder"):
            locked(out).__enter__()
    with shared(run):
        pass


def test_nor_does_a_run_write_into_the_folder_of_another_command(tmp_path: Path) -> None:
    with locked(tmp_path / "data"):
        write_json(tmp_path / "data/x.json", [])
    with pytest.raises(ConfigError, match="data: holds the output of another command"):
        shared(tmp_path / "data").__enter__()


def test_a_mark_of_an_earlier_version_is_of_any_kind(tmp_path: Path) -> None:
    (tmp_path / MARK).write_text('{"schema": 1, "made_by": "response-tuning"}')
    write_json(tmp_path / "x.json", [])
    for command in (locked, shared):
        with command(tmp_path):
            pass


@pytest.mark.parametrize("marked", [True, False])
def test_a_run_of_an_earlier_version_is_known_by_its_manifest(tmp_path: Path, marked: bool) -> None:
    if marked:
        (tmp_path / MARK).write_text('{"schema": 1, "made_by": "response-tuning"}')
    write_json(tmp_path / "manifest.json", {"experiment": {}})
    with pytest.raises(ConfigError, match="holds a run of a recipe"):
        locked(tmp_path).__enter__()
    with shared(tmp_path):
        pass


def test_a_command_is_refused_below_a_folder_in_which_another_is_at_work(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with shared(run), free_folder(run / "rt/seed-0"):
        for command in (locked(run / "rt/seed-0/finetune"), locked_file(run / "rt/seed-0/o.jsonl")):
            with pytest.raises(ConfigError, match=r"rt/seed-0: another rtune is using it"):
                command.__enter__()
        with locked(run / "rt/seed-1/finetune"):
            pass


def test_a_cell_is_in_use_while_a_command_works_below_it(tmp_path: Path) -> None:
    cell = tmp_path / "run/rt/seed-0"
    with shared(tmp_path / "run"):
        with free_folder(cell):
            write_json(cell / "x.json", [])
        with locked(cell / "finetune"), locked(cell / "other"), free_folder(cell) as is_free:
            assert not is_free
        with free_folder(cell) as is_free:
            assert is_free
