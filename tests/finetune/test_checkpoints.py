import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from safetensors.torch import load_file

from response_tuning import seals
from response_tuning.artifacts import Example, write_json, write_jsonl
from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ConfigError
from response_tuning.finetune import progress
from response_tuning.finetune.checkpoints import Checkpoints
from response_tuning.finetune.run import finetune
from response_tuning.seals import SEAL

STEPS, STOPPED = 7, 5
METHODS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "lora": {"method": "lora", "lora_r": 4, "lora_dropout": 0.1},
}
Tune = Callable[[str, Path], Path]


@pytest.fixture(scope="module")
def tune(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Tune:
    """Tune in a folder; 4 steps are an epoch, so that the last step is inside one."""
    data = tmp_path_factory.mktemp("data")
    examples = [Example(row=i, response=f"It is {i}, of course. ") for i in range(16)]
    write_jsonl(data / "examples.jsonl", examples)
    audit = {"rows": 16, "rows_kept": 16, "examples": 16, "dropped": {}}
    write_json(data / "audit.json", audit | {"source": {"name": "answers.jsonl"}})
    settings: dict[str, Any] = {
        "max_steps": STEPS,
        "save_steps": 2,
        "examples_per_step": 4,
        "window": 64,
    }
    settings |= {"base_model": str(tiny_base), "device": "cpu"}

    def run(method: str, out: Path) -> Path:
        config = FinetuneConfig.model_validate(settings | METHODS[method])
        return finetune(config, data, out, Console(width=200))

    return run


@pytest.fixture(scope="module")
def whole(tune: Tune, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {method: tune(method, tmp_path_factory.mktemp(method)) for method in METHODS}


@pytest.fixture(scope="module")
def stopped(tune: Tune, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs that were stopped after step 5, with checkpoints of steps 2 and 4."""
    found = {}
    write = progress.Metrics.on_log

    def write_or_stop(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        write(self, args, state, control, **kwargs)
        if state.global_step == STOPPED:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress.Metrics, "on_log", write_or_stop)
        for method in METHODS:
            found[method] = tmp_path_factory.mktemp(f"{method}-stopped")
            with pytest.raises(KeyboardInterrupt):
                tune(method, found[method])
    return found


def weights(out: Path) -> Any:
    (file,) = out.glob("*.safetensors")
    return load_file(file)


def same(out: Path, expected: Path) -> bool:
    alike = (out / "metrics.jsonl").read_bytes() == (expected / "metrics.jsonl").read_bytes()
    found, other = weights(out), weights(expected)
    return alike and all(found[name].equal(other[name]) for name in other)


def copied(source: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(source, tmp_path / "run"))


def run_of(out: Path) -> str:
    seal = next((out / "checkpoints").glob(f"*/{SEAL}"))
    return str(json.loads(seal.read_text())["run"])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def files_of(method: str) -> list[str]:
    weights = {
        "full": ["model.safetensors", "config.json", "generation_config.json"],
        "lora": ["adapter_model.safetensors", "adapter_config.json"],
    }
    state = ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
    return [*weights[method], *state, SEAL]


@pytest.mark.parametrize("change", [flip, cut, empty, Path.unlink])
@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_file_of_a_checkpoint_is_named_with_the_checkpoint_that_is_gone_on_from(
    stopped: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    method: str,
    change: Callable[[Path], None],
) -> None:
    run = run_of(stopped[method])
    for name in files_of(method):
        if name == SEAL and change is Path.unlink:
            continue  # that is how a kill leaves it
        out = copied(stopped[method], tmp_path)
        change(out / "checkpoints" / "checkpoint-4" / name)
        caplog.clear()
        found = seals.newest_checkpoint(out / "checkpoints", run)
        assert found == out / "checkpoints" / "checkpoint-2"
        (record,) = caplog.records
        assert f"checkpoint-4: {name} " in record.message
        assert record.message.endswith("; going on from checkpoint-2")
        assert [path.name for path in (out / "checkpoints").iterdir()] == ["checkpoint-2"]
        shutil.rmtree(out)


def test_an_edited_step_is_noticed_and_the_run_ends_in_the_same_bytes(
    tune: Tune, whole: dict[str, Path], stopped: dict[str, Path], tmp_path: Path
) -> None:
    out = copied(stopped["full"], tmp_path)
    path = out / "checkpoints" / "checkpoint-4" / "trainer_state.json"
    path.write_text(path.read_text().replace('"global_step": 4', '"global_step": 1'))
    assert same(tune("full", out), whole["full"])


def test_a_run_without_a_good_checkpoint_starts_over_and_ends_in_the_same_bytes(
    tune: Tune,
    whole: dict[str, Path],
    stopped: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = copied(stopped["lora"], tmp_path)
    for name in ("checkpoint-2", "checkpoint-4"):
        flip(out / "checkpoints" / name / "optimizer.pt")
    assert same(tune("lora", out), whole["lora"])
    said = [record.message for record in caplog.records]
    assert len(said) == 2
    assert all("no other checkpoint, so starting over" in line for line in said)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_ended_inside_an_epoch_takes_no_step_more(
    tune: Tune,
    whole: dict[str, Path],
    stopped: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    out = copied(stopped[method], tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("response_tuning.finetune.run._save", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tune(method, out)
    assert (out / "checkpoints" / f"checkpoint-{STEPS}" / SEAL).exists()
    assert same(tune(method, out), whole[method])
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["steps"] == STEPS


def test_the_checkpoints_of_another_run_are_refused(
    stopped: dict[str, Path], tmp_path: Path
) -> None:
    out = copied(stopped["full"], tmp_path)
    with pytest.raises(ConfigError, match="checkpoint-4 is of another run; choose another --out"):
        seals.newest_checkpoint(out / "checkpoints", "another")
    assert (out / "checkpoints" / "checkpoint-4").exists()


def signalled_at_step(number: int, step: int) -> Callable[..., None]:
    write = progress.Metrics.on_log

    def write_and_signal(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        write(self, args, state, control, **kwargs)
        if state.global_step == step:
            os.kill(os.getpid(), number)

    return write_and_signal


def test_sigterm_saves_a_checkpoint_after_the_next_step_and_the_same_command_goes_on_from_it(
    tune: Tune,
    whole: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        patch.setattr(progress.Metrics, "on_log", signalled_at_step(signal.SIGTERM, 2))
        with pytest.raises(SystemExit) as ended:
            tune("lora", tmp_path)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert [record.message for record in caplog.records] == ["SIGTERM: saved checkpoint-3"]
    capsys.readouterr()
    assert same(tune("lora", tmp_path), whole["lora"])
    assert "resuming from checkpoint-3" in capsys.readouterr().out


def test_ctrl_c_saves_a_checkpoint_after_the_next_step_and_the_same_command_goes_on_from_it(
    tune: Tune,
    whole: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(progress.Metrics, "on_log", signalled_at_step(signal.SIGINT, 2))
        with pytest.raises(KeyboardInterrupt):
            tune("lora", tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    assert [record.message for record in caplog.records] == [
        "stopping after this step, with a checkpoint; Ctrl-C stops at once",
        "SIGINT: saved checkpoint-3",
    ]
    assert same(tune("lora", tmp_path), whole["lora"])


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    with callback(tmp_path, []).on_signals():
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_sigusr1_saves_a_checkpoint_and_the_run_goes_on(
    tune: Tune,
    whole: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if not hasattr(signal, "SIGUSR1"):
        pytest.skip("there is no SIGUSR1")
    monkeypatch.setattr(progress.Metrics, "on_log", signalled_at_step(signal.SIGUSR1, 2))
    assert same(tune("full", tmp_path), whole["full"])
    assert [record.message for record in caplog.records] == ["SIGUSR1: saved checkpoint-3"]


def callback(output: Path, waited: list[list[Path]]) -> Checkpoints:
    def wait() -> None:
        waited.append(sorted(output.rglob("*")))

    trainer: Any = SimpleNamespace(accelerator=SimpleNamespace(wait_for_everyone=wait))
    return Checkpoints(trainer, "run")


def saved(output: Path, step: int) -> Any:
    checkpoint = output / f"checkpoint-{step}"
    checkpoint.mkdir()
    (checkpoint / "model").write_text(str(step))
    return SimpleNamespace(global_step=step, is_world_process_zero=True)


def test_a_checkpoint_is_sealed_when_every_process_has_written_its_part_and_two_are_kept(
    tmp_path: Path,
) -> None:
    waited: list[list[Path]] = []
    callbacks = callback(tmp_path, waited)
    args = SimpleNamespace(output_dir=tmp_path)
    for step in (9, 10, 11):
        callbacks.on_save(args, saved(tmp_path, step), None)
        assert (tmp_path / f"checkpoint-{step}" / SEAL).exists()
        assert tmp_path / f"checkpoint-{step}" / SEAL not in waited[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-11"]
    assert seals.newest_checkpoint(tmp_path, "run") == tmp_path / "checkpoint-11"


def test_another_process_than_the_first_seals_nothing(tmp_path: Path) -> None:
    callbacks = callback(tmp_path, [])
    state = saved(tmp_path, 3)
    state.is_world_process_zero = False
    callbacks.on_save(SimpleNamespace(output_dir=tmp_path), state, None)
    assert [path.name for path in (tmp_path / "checkpoint-3").iterdir()] == ["model"]
