"""Checkpoints: sealed when whole, verified before a run resumes from one, saved on a signal."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from response_tuning import seals
from response_tuning.artifacts import sync_folder

if TYPE_CHECKING:
    from response_tuning.finetune.trainer import ResponseTrainer


logger = logging.getLogger(__name__)

_SIGNALS = [name for name in ("SIGUSR1", "SIGINT", "SIGTERM") if hasattr(signal, name)]
"""From the weaker to the stronger; Windows has no SIGUSR1."""


class Checkpoints(TrainerCallback):
    """Seals checkpoints, keeps the newest two, and saves one on a signal.

    SIGUSR1, as Slurm sends it ahead of a time limit (``--signal=USR1@90``), saves a checkpoint
    after the current step, and the run continues. SIGTERM and Ctrl-C do the same and end the run;
    a second Ctrl-C ends it at once.
    """

    def __init__(self, trainer: "ResponseTrainer", run: str) -> None:
        self._trainer = trainer
        self._run = run
        self._pending = 0
        """1 + the place in ``_SIGNALS`` of the signal that this process received; 0 for none."""
        self._due = 0
        """The greatest ``_pending`` of all processes when the latest step ended."""
        self._interrupted = False
        """Whether Ctrl-C was pressed."""

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Handle signals inside the block; Python allows no handler outside the main thread."""
        alone = threading.current_thread() is threading.main_thread()
        names = _SIGNALS if alone else []
        before = {name: signal.signal(signal.Signals[name], self._receive) for name in names}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(signal.Signals[name], handler)

    def _receive(self, number: int, frame: object) -> None:
        if number == signal.SIGINT:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True
            logger.warning("stopping after this step, with a checkpoint; Ctrl-C stops at once")
        self._pending = max(self._pending, 1 + _SIGNALS.index(signal.Signals(number).name))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Save a checkpoint if any process received a signal; all processes save it together."""
        self._due = pending = self._pending
        if args.world_size > 1:
            flag = torch.tensor([pending], device=args.device)
            self._due = int(self._trainer.accelerator.gather(flag).max())
        if self._pending == pending:  # a signal that came meanwhile is for the next step
            self._pending = 0
        if self._due:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Seal the checkpoint: Trainer writes its files in place, so the seal must come last.

        Raises:
            SystemExit: SIGTERM ends the run.
            KeyboardInterrupt: Ctrl-C ends the run.
        """
        self._trainer.accelerator.wait_for_everyone()  # each process writes its generator's state
        folder = Path(args.output_dir)
        checkpoint = folder / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero:
            with seals.saving(checkpoint):
                seals.seal(checkpoint, run=self._run)
                sync_folder(folder)
            seals.keep_newest(folder)
        if not self._due:
            return
        name = _SIGNALS[self._due - 1]
        self._due = 0
        if state.is_world_process_zero:
            logger.warning("%s: saved %s", name, checkpoint.name)
        if name == "SIGUSR1":
            return
        self._trainer.accelerator.wait_for_everyone()
        if name == "SIGINT":
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)
