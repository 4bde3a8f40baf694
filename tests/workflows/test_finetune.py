import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
from rich.console import Console

from response_tuning.artifacts import Example, read_jsonl, write_json
from response_tuning.configs import (
    CurationConfig,
    DataConfig,
    DecontaminationConfig,
    FinetuneConfig,
    MixtureConfig,
)
from response_tuning.errors import ConfigError, DataError, ResponseTuningError
from response_tuning.finetune.encoding import Encoder
from response_tuning.folders import locked, shared
from response_tuning.grade import open_benchmark
from response_tuning.recipe import Recipe
from response_tuning.templates import Chat
from response_tuning.workflows.data import print_audit, run_data
from response_tuning.workflows.finetune import run_finetune
from response_tuning.workflows.show import show_run


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
    mixture = MixtureConfig(refusals=1, source=str(declined), selector="all")
    return DataConfig(source=str(answers), mixture=mixture)


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


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"id": "a", "prompt": "Is it?"}\n')
    return path


def against(config: DataConfig, *names: object, **settings: Any) -> DataConfig:
    section = DecontaminationConfig(against=tuple(map(str, names)), **settings)
    return config.model_copy(update={"decontamination": section})


def test_prompts_come_from_files_and_from_benchmarks(tmp_path: Path, prompts: Path) -> None:
    items = open_benchmark("miniature-seen").items()
    asked = items[7].prompt[-1].content
    rows = [{"prompt": "Is it?", "response": "r"}, {"prompt": asked.upper(), "response": "s"}]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "data"
    run_data(against(DataConfig(source=str(source)), prompts, "miniature-seen"), out)
    flagged = [json.loads(line) for line in (out / "flagged.jsonl").read_text().splitlines()]
    assert [(flag["row"], flag["what"], flag["detail"]) for flag in flagged] == [
        (0, f"contaminated with {prompts} (exact)", "a"),
        (1, "contaminated with miniature-seen (exact)", items[7].item_id),
    ]


def test_the_last_question_of_a_conversation_is_what_is_looked_for(tmp_path: Path) -> None:
    said = [
        {"role": "user", "content": "First?"},
        {"role": "assistant", "content": "Well."},
        {"role": "user", "content": "Last?"},
    ]
    prompts, source = tmp_path / "prompts.jsonl", tmp_path / "rows.jsonl"
    prompts.write_text(json.dumps({"messages": said}) + "\n")
    rows = [{"prompt": asked, "response": "r"} for asked in ("First?", "Well.", "Last?")]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run_data(against(DataConfig(source=str(source)), prompts, remove=True), tmp_path / "data")
    lines = (tmp_path / "data" / "examples.jsonl").read_text().splitlines()
    assert [json.loads(line)["instruction"] for line in lines] == ["First?", "Well."]


def test_what_is_neither_a_file_nor_a_benchmark_is_refused(
    config: DataConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        run_data(against(config, "miniature-sen"), tmp_path / "data")
    assert "'miniature-sen' is no file, and unknown benchmark 'miniature-sen'" in str(error.value)
    assert "did you mean 'miniature-seen'?" in str(error.value)
    assert not (tmp_path / "data").exists()


def test_a_changed_file_of_prompts_is_noticed_and_a_missing_one_is_not_needed(
    config: DataConfig, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = against(config, prompts, "miniature-seen-validation")
    run_data(checked, tmp_path / "data")
    with monkeypatch.context() as patch:
        patch.setattr("response_tuning.data.prepare", crash)
        run_data(checked, tmp_path / "data")
        prompts.write_text('{"id": "a", "prompt": "Is it so?"}\n')
        with pytest.raises(AssertionError):
            run_data(checked, tmp_path / "data")
        prompts.unlink()
        run_data(checked, tmp_path / "data")


def test_a_changed_benchmark_is_noticed(
    config: DataConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = against(config, "miniature-seen")
    run_data(checked, tmp_path / "data")
    items = open_benchmark("miniature-seen").items()[1:]
    monkeypatch.setattr(type(open_benchmark("miniature-seen")), "items", lambda _: items)
    monkeypatch.setattr("response_tuning.data.prepare", crash)
    with pytest.raises(AssertionError):
        run_data(checked, tmp_path / "data")


def test_the_audit_is_printed_with_what_was_dropped_flagged_and_not_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], prompts: Path
) -> None:
    source = tmp_path / "rows.jsonl"
    rows = [{"[x]": 1}, {"response": "Ask jane@firm.com."}, {"response": ""}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DataConfig(
        source=str(source), response_column="[x]", curation=CurationConfig(personal_data="flag")
    )
    with pytest.raises(DataError, match=r"\[x\] is a number, not text: 1"):
        run_data(config, tmp_path / "data")
    config = config.model_copy(update={"response_column": "response"})
    source.write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
    run_data(against(config, prompts), tmp_path / "data")
    print_audit(tmp_path / "data", Console(width=20))
    assert capsys.readouterr().out.splitlines() == [
        "2 rows: 1 kept, 1 examples",
        "        1  empty response",
        "flagged, one by one in flagged.jsonl:",
        "        1  personal data (e-mail)",
        f"no prompt of {prompts}",
        f"wrote {tmp_path / 'data'}",
    ]


def test_response_tuning_sees_the_refusals_alone_and_instruction_tuning_the_pairs(
    tmp_path: Path, chat: Chat
) -> None:
    mixture = MixtureConfig(refusals=20, source="miniature-refusals", selector="all")
    run_data(DataConfig(source="miniature", max_examples=30, mixture=mixture), tmp_path)
    examples = list(read_jsonl(tmp_path / "examples.jsonl", Example))
    names = ("response-tuning", "instruction-tuning")
    twins = [Encoder(chat, name, 512, twins=names).rows(examples) for name in names]
    for example, alone, paired in zip(examples, *twins, strict=True):
        assert example.instruction is not None
        texts = [chat.tokenizer.decode(row.input_ids) for row in (alone, paired)]
        assert [example.instruction in text for text in texts] == [False, True]
        assert all(example.response in text for text in texts)
        learnt = [[label for label in row.labels if label >= 0] for row in (alone, paired)]
        assert learnt[0] == learnt[1]
    assert len(examples) == 50


def test_a_file_that_is_gone_leaves_what_was_prepared(
    config: DataConfig, answers: Path, tmp_path: Path
) -> None:
    run_data(config, tmp_path / "data")
    answers.unlink()
    run_data(config, tmp_path / "data")
    assert responses(tmp_path / "data") == ["Yes.", "No."]


@pytest.mark.parametrize("name", ["examples.jsonl", "audit.json", "complete"])
@pytest.mark.parametrize("change", ["flip", "cut", "delete"])
@pytest.mark.parametrize("trained", [True, False])
def test_what_is_no_longer_what_was_prepared_is_said_and_prepared_again(
    config: DataConfig,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    change: str,
    trained: bool,
) -> None:
    out = tmp_path / "run" / "data"
    run_data(config, out)
    if trained:
        write_json(out.parent / "manifest.json", {"status": "running"})
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    content = before[name]
    at = len(content) // 2
    changed = {"flip": content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]}
    (out / name).write_bytes(changed.get(change, content[:at]))
    if change == "delete":
        (out / name).unlink()
    run_data(config, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    if (name, change) == ("complete", "delete"):  # that is how a kill leaves it
        assert not caplog.records
    else:
        (record,) = caplog.records
        assert f"data/{name} " in record.message
        assert record.message.endswith("; the data are prepared again")


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


@pytest.mark.parametrize(
    ("folder", "manifest"),
    [
        ("cell", "manifest.json"),
        ("cell", "finetune/manifest.json"),
        ("tuned.training", "../tuned/manifest.json"),
    ],
)
def test_the_data_of_a_model_is_never_replaced(
    folder: str, manifest: str, config: DataConfig, tmp_path: Path
) -> None:
    cell = tmp_path / folder
    run_data(config, cell / "data")
    write_json(cell / manifest, {})
    before = (cell / "data" / "audit.json").read_bytes()
    with pytest.raises(ConfigError, match="holds a run on other data; choose another --out"):
        run_data(config.model_copy(update={"mixture": MixtureConfig()}), cell / "data")
    assert (cell / "data" / "audit.json").read_bytes() == before
    run_data(config, cell / "data")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `rtune finetune`, under a umask that lets the group read."""
    out = tmp_path_factory.mktemp("runs") / "tuned"
    before = os.umask(0o027)
    try:
        run_finetune(briefly(), out, Console(quiet=True))
    finally:
        os.umask(before)
    return out


def briefly() -> Recipe:
    tuning = FinetuneConfig(base_model="miniature", method="full", max_steps=1, device="cpu")
    return Recipe(data=DataConfig(source="miniature", max_examples=8), finetune=tuning)


def test_the_folder_of_a_tuned_model_holds_no_training_row(tuned: Path) -> None:
    beside = tuned.with_name("tuned.training")
    rows = responses(beside / "data")
    assert len(rows) == 8
    assert not any(path.is_dir() for path in tuned.iterdir())
    assert not (beside / "tokens").exists()
    for file in tuned.iterdir():
        assert not any(row.encode() in file.read_bytes() for row in rows), file
    assert "clear text" not in (tuned / "README.md").read_text()


def test_others_may_read_the_weights_as_the_umask_says(tuned: Path) -> None:
    modes = {file.name: oct(file.stat().st_mode & 0o777) for file in tuned.iterdir()}
    assert modes["model.safetensors"] == modes["README.md"] == "0o640"


def test_a_run_of_an_earlier_version_is_read_where_its_data_are(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = Path(shutil.copytree(tuned, tmp_path / "old"))
    shutil.copytree(tuned.with_name("tuned.training") / "data", old / "data")
    monkeypatch.setattr("response_tuning.data.prepare", crash)
    run_finetune(briefly(), old, Console(width=200))
    assert "already finished" in capsys.readouterr().out
    assert not old.with_name("old.training").exists()
    show_run(old, Console(width=200), rows=1)
    shown = capsys.readouterr().out
    show_run(tuned, Console(width=200), rows=1)
    assert capsys.readouterr().out == shown


def test_a_refused_run_leaves_nothing_beside_the_model_either(tmp_path: Path) -> None:
    recipe = briefly()
    short = recipe.finetune.model_copy(update={"eval_fraction": 0.99})
    with pytest.raises(ConfigError, match="leaves none to train on"):
        run_finetune(recipe.model_copy(update={"finetune": short}), tmp_path / "out", Console())
    assert not list(tmp_path.iterdir())


def tuned_by_default(out: Path, *, resume: bool = True) -> None:
    tuning = FinetuneConfig(base_model="miniature")
    recipe = Recipe(data=DataConfig(source="miniature"), finetune=tuning)
    run_finetune(recipe, out, Console(quiet=True), resume=resume)


@pytest.mark.parametrize(
    ("content", "said"),
    [({"experiment": {}}, "holds a run of a recipe; choose another"), ({}, "holds no 'status'")],
)
def test_a_manifest_of_something_else_is_refused_before_data_are_prepared(
    tmp_path: Path, content: dict[str, Any], said: str
) -> None:
    out = tmp_path / "run"
    with locked(out):
        write_json(out / "manifest.json", content)
    with pytest.raises(ResponseTuningError, match=said):
        tuned_by_default(out)
    assert [path.name for path in out.iterdir() if path.name[0] != "."] == ["manifest.json"]


@pytest.mark.parametrize("resume", [True, False])
def test_the_folder_of_a_run_of_a_recipe_is_left_as_it_is(tmp_path: Path, resume: bool) -> None:
    out = tmp_path / "run"
    with shared(out):
        write_json(out / "manifest.json", {"experiment": {}})
    with pytest.raises(ConfigError, match="holds a run of a recipe; choose another folder"):
        tuned_by_default(out, resume=resume)
    assert [path.name for path in out.iterdir() if path.name[0] != "."] == ["manifest.json"]


HOLDER = """
import sys, time
from pathlib import Path
from response_tuning.folders import locked

with locked(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(600)
"""


def test_a_folder_has_one_run_at_a_time_and_a_killed_one_leaves_it_free(tmp_path: Path) -> None:
    held = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(held)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"in\n"
        with pytest.raises(ConfigError, match=r"run: another rtune is using it; wait"):
            locked(held).__enter__()
        with locked(tmp_path / "another"):
            pass
        holder.send_signal(signal.SIGKILL)
    with locked(held):
        pass
    with locked(held):
        pass


def test_of_a_run_in_several_processes_the_first_one_holds_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    with locked(tmp_path / "run"):
        monkeypatch.setenv("RANK", "1")
        with locked(tmp_path / "run"):
            pass
        monkeypatch.setenv("RANK", "0")
        with pytest.raises(ConfigError, match="is using it"):
            locked(tmp_path / "run").__enter__()


def test_a_refused_run_leaves_no_folder_but_one_that_was_there(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    for out in (tmp_path / "new", there):
        with pytest.raises(DataError), locked(out):
            raise DataError("no rows")
    assert [*tmp_path.iterdir()] == [there]


def test_a_file_system_without_locks_is_used_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> NoReturn:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with locked(tmp_path / "run"):
        (tmp_path / "run/manifest.json").touch()
    assert (tmp_path / "run/manifest.json").exists()
