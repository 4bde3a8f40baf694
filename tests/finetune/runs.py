"""A run in a process of its own, which kills itself where a test says; see ``test_run.py``."""

import io
import os
import signal
from pathlib import Path
from typing import Any

from rich.console import Console

from response_tuning.artifacts import Example
from response_tuning.configs import FinetuneConfig
from response_tuning.finetune import progress
from response_tuning.finetune.encoding import Encoder
from response_tuning.finetune.rows import EncodedRow
from response_tuning.finetune.run import finetune
from response_tuning.finetune.trainer import ResponseTrainer
from response_tuning.terminal import quiet_libraries


def kill_after_step(step: int) -> None:
    """Die as soon as the metrics of ``step`` are written."""
    write = progress.Metrics.on_log

    def write_and_die(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        write(self, args, state, control, **kwargs)
        if state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    progress.Metrics.on_log = write_and_die  # type: ignore[method-assign]


def kill_while_saving(step: int) -> None:
    """Die in the middle of the checkpoint of ``step``: weights are there, the rest is not."""
    save = ResponseTrainer._save_rng_state

    def die(self: Any, output_dir: str) -> None:
        if self.state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, output_dir)

    ResponseTrainer._save_rng_state = die  # type: ignore[method-assign]


def kill_while_encoding(row: int) -> None:
    """Die when the example of ``row`` is about to be encoded."""
    encode = Encoder._row

    def encode_or_die(self: Encoder, example: Example, *rest: Any) -> EncodedRow:
        if example.row == row:
            os.kill(os.getpid(), signal.SIGKILL)
        return encode(self, example, *rest)

    Encoder._row = encode_or_die  # type: ignore[method-assign, assignment]


KILLS = {"step": kill_after_step, "saving": kill_while_saving, "encoding": kill_while_encoding}


def run(config: FinetuneConfig, data: Path, out: Path, kill: tuple[str, int] | None) -> None:
    """Fine-tune; ``kill`` names where this process kills itself."""
    quiet_libraries()
    if kill is not None:
        where, place = kill
        KILLS[where](place)
    finetune(config, data, out, Console(file=io.StringIO()))
