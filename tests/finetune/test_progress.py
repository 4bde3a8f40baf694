import io
import json
import math
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from response_tuning.errors import ConfigError, ModelError
from response_tuning.finetune import progress
from response_tuning.finetune.progress import Metrics, ProgressDisplay, check_tracker

TRAINER: Any = SimpleNamespace(
    step_tokens=100, step_supervised=60, step_terms={}, backed_off=[], shards=None
)
LOGS = {"loss": 2.5, "grad_norm": 1.0, "learning_rate": 0.1, "epoch": 0.25}


def state(step: int, first: bool = True) -> Any:
    return SimpleNamespace(
        global_step=step, max_steps=4, epoch=step / 4, is_world_process_zero=first
    )


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def train(bar: ProgressDisplay, steps: int = 4, first: bool = True) -> None:
    bar.on_train_begin(None, state(0, first), None)
    for step in range(1, steps + 1):
        bar.on_log(None, state(step, first), None, logs=LOGS)


@pytest.fixture
def plain() -> Console:
    return Console(file=io.StringIO(), width=40)


@pytest.fixture
def terminal() -> Console:
    return Console(file=io.StringIO(), width=100, force_terminal=True)


def test_each_step_is_one_line_without_the_clock(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "run" / "metrics.jsonl", TRAINER)
    metrics.on_log(None, state(1), None, logs=LOGS)
    metrics.on_log(None, state(1), None, logs={"eval_loss": 3.0, "epoch": 0.25})
    metrics.on_log(None, state(4), None, logs={"train_runtime": 12.0, "train_loss": 2.0})
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {**LOGS, "step": 1, "tokens": 100, "supervised_tokens": 60},
        {"step": 1, "epoch": 0.25, "eval_loss": 3.0},
    ]


def test_the_terms_of_a_loss_are_logged_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TRAINER, "step_terms", {"tokens": 2.0, "preference": 0.5})
    Metrics(tmp_path / "metrics.jsonl", TRAINER).on_log(None, state(1), None, logs=LOGS)
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert line == {
        **LOGS,
        "step": 1,
        "tokens": 100,
        "supervised_tokens": 60,
        "term_tokens": 2.0,
        "term_preference": 0.5,
    }


def test_a_line_that_a_crash_cut_off_is_gone_before_the_next_is_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    Metrics(path, TRAINER).on_log(None, state(2), None, logs=LOGS)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_on_file_and_ends_the_run(tmp_path: Path, loss: float) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", TRAINER)
    said = rf"^the loss is {loss} at step 3: .*--learning-rate, and start over"
    with pytest.raises(ModelError, match=said):
        metrics.on_log(None, state(3), None, logs=LOGS | {"loss": loss})
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 3


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", TRAINER)
    metrics.on_log(None, state(1, first=False), None, logs=LOGS)
    metrics.on_save(SimpleNamespace(output_dir=tmp_path), state(1, first=False), None)
    assert not list(tmp_path.iterdir())


def begun(metrics: Metrics, logged: int) -> None:
    args = SimpleNamespace(eval_strategy="no")
    history = [{"step": step + 1} for step in range(logged)]
    found = SimpleNamespace(global_step=logged, max_steps=4, epoch=0.5, log_history=history)
    found.is_world_process_zero = True
    metrics.on_train_begin(args, found, None)


@pytest.mark.parametrize("logged", [0, 2])
def test_lines_after_the_checkpoint_that_a_run_goes_on_from_are_cut_off(
    tmp_path: Path, logged: int
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f'{{"step": {step}}}\n' for step in (1, 2, 3)) + '{"ste')
    begun(Metrics(path, TRAINER), logged)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2][:logged]


def test_lines_that_are_gone_are_missed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    begun(Metrics(path, TRAINER), 3)
    assert "2 of its 3 lines are missing" in caplog.text


def test_a_line_that_does_not_fit_the_disk_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl", TRAINER)
    monkeypatch.setattr(Path, "open", lambda *_, **__: nullcontext(SimpleNamespace(write=len1)))
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics.jsonl'"):
        metrics.on_log(None, state(1), None, logs=LOGS)


def len1(line: bytes) -> int:
    return len(line) - 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tensorbord", "did you mean 'tensorboard'"),
        ("comet_ml", "not installed: pip install comet_ml"),
        ("mlflow", "not installed: pip install mlflow"),
    ],
)
def test_a_tracker_that_is_not_there_is_refused(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_tracker(name)


def test_a_tracker_that_is_there_is_not_begun_by_asking(tmp_path: Path) -> None:
    check_tracker("none")
    check_tracker("tensorboard")
    assert not list(tmp_path.iterdir())


def test_without_a_terminal_there_is_a_plain_line_now_and_then_and_at_the_end(
    plain: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(ProgressDisplay(TRAINER, plain))
    (last,) = shown(plain).splitlines()
    assert last.startswith("step 4/4  loss 2.5000  ")
    assert last.endswith(" tokens/s  0 s left")
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0.0)
    train(ProgressDisplay(TRAINER, plain))
    assert [line.split()[1] for line in shown(plain).splitlines()[1:]] == [
        f"{step}/4" for step in (1, 2, 3, 4)
    ]
    assert "\x1b" not in shown(plain)


def test_in_a_terminal_there_is_a_bar_and_the_cursor_comes_back(terminal: Console) -> None:
    bar = ProgressDisplay(TRAINER, terminal)
    train(bar, steps=3)
    assert "\x1b[?25l" in shown(terminal)  # the cursor is hidden
    bar.on_train_end(None, state(3), None)
    bar.close()
    assert "3/4" in shown(terminal)
    assert "loss 2.5000" in shown(terminal)
    assert shown(terminal).count("\x1b[?25h") == 1


def test_other_processes_show_nothing_in_a_terminal(terminal: Console) -> None:
    train(ProgressDisplay(TRAINER, terminal), first=False)
    assert shown(terminal) == ""


def test_the_cost_counts_this_process_part_of_the_run(plain: Console) -> None:
    bar = ProgressDisplay(TRAINER, plain)
    bar.on_train_begin(None, state(2), None)  # resumed
    for step in (3, 4):
        bar.on_log(None, state(step), None, logs=LOGS)
    bar.on_log(None, state(4), None, logs={"eval_loss": 3.0})
    assert bar.cost["tokens"] == 200
