"""What a run prints while it trains, and what it writes to ``metrics.jsonl``."""

import errno
import json
import logging
import math
import os
import time
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback
from transformers.trainer_utils import IntervalStrategy

from response_tuning.errors import ConfigError, ModelError
from response_tuning.journals import cut_torn_line
from response_tuning.registry import unknown
from response_tuning.terminal import PLAIN_EVERY_S

if TYPE_CHECKING:
    from response_tuning.finetune.trainer import ResponseTrainer


logger = logging.getLogger(__name__)


class Metrics(TrainerCallback):
    """Appends one line a step to ``metrics.jsonl``.

    The file holds nothing that depends on the clock, so two equal runs leave equal bytes, even
    if one was killed: a resumed run first cuts off the lines after its checkpoint.
    """

    def __init__(self, path: Path, trainer: "ResponseTrainer") -> None:
        self._path = path
        self._trainer = trainer
        path.parent.mkdir(parents=True, exist_ok=True)
        cut_torn_line(path)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Continue after the lines of the checkpoint, and run an evaluation that a kill prevented.

        A checkpoint at the end of an epoch is saved just before the evaluation, and Trainer resumes
        from it with the next epoch.
        """
        if state.is_world_process_zero:
            self._keep(len(state.log_history))
        ended = state.epoch == int(state.epoch or 0) or state.global_step >= state.max_steps
        due = args.eval_strategy == IntervalStrategy.EPOCH and state.global_step > 0 and ended
        if due and not _evaluated(state):
            self._trainer.evaluate()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Write the step's line.

        Raises:
            ModelError: the loss is no longer a number.
        """
        logs = kwargs["logs"]
        if "train_runtime" in logs or not state.is_world_process_zero:
            return
        line = {"step": state.global_step, "epoch": round(state.epoch or 0.0, 6)}
        line |= {name: value for name, value in logs.items() if name != "epoch"}
        if "loss" in logs:
            line["tokens"] = self._trainer.step_tokens
            line["supervised_tokens"] = self._trainer.step_supervised
            line |= {f"term_{name}": value for name, value in self._trainer.step_terms.items()}
            changes = [c for c in self._trainer.backed_off if c["step"] == state.global_step]
            line |= {name: change[name] for change in changes for name in change}
        # JSON has no NaN and no infinity.
        strict = {k: v if math.isfinite(v) else None for k, v in line.items()}
        written = json.dumps(strict, allow_nan=False).encode() + b"\n"
        with self._path.open("ab", buffering=0) as journal:
            # Unbuffered, so a full disk may write a part of the line.
            if journal.write(written) != len(written):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        if not math.isfinite(logs.get("loss", 0.0)):
            raise ModelError(
                f"the loss is {logs['loss']} at step {state.global_step}: training has diverged; "
                "lower --learning-rate, and start over with --no-resume or in another --out"
            )

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Flush the lines to the disk: the state of the checkpoint counts them."""
        if state.is_world_process_zero and self._path.exists():
            with self._path.open("rb+") as journal:
                os.fsync(journal.fileno())

    def _keep(self, count: int) -> None:
        """Keep the first ``count`` lines: those before the checkpoint that the run resumes from."""
        if not self._path.exists():
            lines: list[bytes] = []
        else:
            with self._path.open("rb+") as journal:
                lines = list(islice(journal, count))
                journal.truncate(sum(map(len, lines)))
        if len(lines) < count:
            logger.warning(
                "%s: %d of its %d lines are missing; new lines follow the remaining ones",
                self._path,
                count - len(lines),
                count,
            )


def _evaluated(state: Any) -> bool:  # noqa: ANN401 - a TrainerState
    """Whether the loss on held-out examples was measured after the latest step."""
    entries = (entry for entry in state.log_history if entry["step"] == state.global_step)
    return any("eval_loss" in entry for entry in entries)


def check_tracker(name: str) -> None:
    """Refuse a tracker that is unknown or not installed; writes nothing.

    Raises:
        ConfigError: the tracker cannot be used.
    """
    from transformers.integrations.integration_utils import get_available_reporting_integrations

    installed = get_available_reporting_integrations()  # type: ignore[no-untyped-call]
    if name != "none" and _kind(name) and name not in installed:
        raise _not_installed(name)


def tracker(name: str, out: Path) -> list[TrainerCallback]:
    """Return the callback of the tracker called ``name``; an empty list for ``none``.

    TensorBoard's files go to ``out/tensorboard``; other trackers choose their own place.

    Raises:
        ConfigError: transformers knows no such tracker, or it is not installed.
    """
    if name == "none":
        return []
    kind = _kind(name)
    try:
        if name != "tensorboard":
            return [kind()]
        from torch.utils.tensorboard import SummaryWriter

        return [kind(SummaryWriter(str(out / "tensorboard")))]
    except (ImportError, RuntimeError) as error:
        raise _not_installed(name) from error


def _kind(name: str) -> Any:  # noqa: ANN401 - a TrainerCallback class
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    if name not in INTEGRATION_TO_CALLBACK:
        raise unknown("tracker", name, ["none", *sorted(INTEGRATION_TO_CALLBACK)])
    return INTEGRATION_TO_CALLBACK[name]


def _not_installed(name: str) -> ConfigError:
    hint = "'response-tuning[tensorboard]'" if name == "tensorboard" else name
    return ConfigError(f"tracker '{name}' is not installed: pip install {hint}")


class ProgressDisplay(TrainerCallback):
    """Shows steps, loss, tokens a second and the time left; plain lines without a terminal."""

    def __init__(self, trainer: "ResponseTrainer", console: Console) -> None:
        self._trainer = trainer
        self._console = console
        self._progress: Progress | None = None
        self._task: Any = None
        self._tokens = 0
        self._started = self._shown = time.monotonic()
        self._first_step = 0
        self._loss = math.nan

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Start the clock, and the bar if there is a terminal."""
        self._started = self._shown = time.monotonic()
        self._first_step = state.global_step
        if self._trainer.shards is not None and state.is_world_process_zero:
            self._console.print(str(self._trainer.shards), highlight=False, soft_wrap=True)
        # Every process trains; one of them draws the bar.
        if state.is_world_process_zero and self._console.is_terminal:
            self._progress = Progress(
                TextColumn("step"),
                MofNCompleteColumn(),
                BarColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._progress.add_task(
                "", total=state.max_steps, completed=state.global_step
            )
            self._progress.start()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Show the latest loss."""
        logs = kwargs["logs"]
        self._loss = logs.get("loss", self._loss)
        if "loss" not in logs or not state.is_world_process_zero:
            return
        self._tokens += self._trainer.step_tokens
        elapsed = time.monotonic() - self._started
        speed = self._tokens / max(elapsed, 1e-9)
        text = f"loss {self._loss:.4f}  {speed:,.0f} tokens/s"
        if self._progress is not None:
            self._progress.update(self._task, completed=state.global_step, description=text)
            return
        # Without a terminal, a log file gets one line at intervals, and always the last step.
        last = state.global_step == state.max_steps
        if last or time.monotonic() - self._shown >= PLAIN_EVERY_S:
            self._shown = time.monotonic()
            done = max(state.global_step - self._first_step, 1)
            left = elapsed / done * (state.max_steps - state.global_step)
            self._console.print(
                f"step {state.global_step}/{state.max_steps}  {text}  {left:.0f} s left",
                highlight=False,
                soft_wrap=True,
            )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Close the bar."""
        self.close()

    def close(self) -> None:
        """Restore the terminal, after an error too."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    @property
    def cost(self) -> dict[str, float]:
        """Seconds and tokens of this process; earlier, killed parts of the run do not count."""
        seconds = time.monotonic() - self._started
        return {"seconds": round(seconds, 1), "tokens": self._tokens}
