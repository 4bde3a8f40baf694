"""Checkpoints: sealed when whole, verified before a run goes on from one, saved when asked for."""

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

_SIGNALS = [name for name in ("SIGUSR1", "SIGTERM") if hasattr(signal, name)]
"""From the least to the most: Windows has no SIGUSR1."""


class Checkpoints(TrainerCallback):
    """Seals checkpoints, keeps the newest two, and saves one when a signal asks for it.

    SIGUSR1, as Slurm sends it ahead of a time limit (``--signal=USR1@90``), saves a checkpoint
    after the step at work, and the run goes on. SIGTERM does the same and ends the run.
    """

    def __init__(self, trainer: "ResponseTrainer", run: str) -> None:
        self._trainer = trainer
        self._run = run
        self._heard = 0
        """1 + the place in ``_SIGNALS`` of what this process heard; 0 for nothing."""
        self._asked = 0
        """What any process had heard when the latest step ended."""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear signals inside the block; Python allows no handler outside the main thread."""
        alone = threading.current_thread() is threading.main_thread()
        names = _SIGNALS if alone else []
        before = {name: signal.signal(signal.Signals[name], self._hear) for name in names}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(signal.Signals[name], handler)

    def _hear(self, number: int, frame: object) -> None:
        self._heard = max(self._heard, 1 + _SIGNALS.index(signal.Signals(number).name))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Have a checkpoint saved if a process was asked for one; all of them save it together."""
        self._asked = heard = self._heard
        if args.world_size > 1:
            flag = torch.tensor([heard], device=args.device)
            self._asked = int(self._trainer.accelerator.gather(flag).max())
        if self._heard == heard:  # what came in the meantime is for the next step
            self._heard = 0
        if self._asked:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Seal the checkpoint: Trainer writes its files in place, so order is all.

        Raises:
            SystemExit: SIGTERM asked for it.
        """
        self._trainer.accelerator.wait_for_everyone()  # each process writes its generator's state
        folder = Path(args.output_dir)
        checkpoint = folder / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero:
            with seals.saving(checkpoint):
                seals.seal(checkpoint, run=self._run)
                sync_folder(folder)
            seals.keep_newest(folder)
        if not self._asked:
            return
        name = _SIGNALS[self._asked - 1]
        self._asked = 0
        if state.is_world_process_zero:
            logger.warning("%s: saved %s", name, checkpoint.name)
        if name == "SIGTERM":
            self._trainer.accelerator.wait_for_everyone()
            raise SystemExit(128 + signal.SIGTERM)
