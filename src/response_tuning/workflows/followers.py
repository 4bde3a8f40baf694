"""A cell that several processes tune together, as torchrun starts them.

The first process takes the cell through its stages as ever. The others wait for the tuning, take
part in it, and end: answers and grades are the first one's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.errors import ConfigError
from response_tuning.workflows.experiment import Cell

if TYPE_CHECKING:
    from rich.console import Console


class Followers:
    """The other processes of this launch; without any, calling them does nothing."""

    def __init__(self, chosen: Sequence[Cell]) -> None:
        from response_tuning.finetune.processes import world_size

        self._count = world_size() - 1
        self._cell = chosen[0]
        self._called = False
        if self._count and len(chosen) != 1:
            raise ConfigError(
                f"{world_size()} launched processes share one cell, and there are {len(chosen)}: "
                "name it with --only; for all cells, use --launcher without torchrun"
            )

    def call(self, *, tune: bool) -> None:
        """Tell the others, once, whether the cell is tuned now; the first process calls this."""
        if self._count and not self._called:
            self._called = True
            self._told(tune)

    def follow(self, run: Path, console: "Console") -> None:
        """Wait for the first process, and tune with it."""
        from response_tuning.finetune import finetune
        from response_tuning.workflows.data import DATA

        if self._told(False):
            folder = self._cell.folder(run)
            finetune(self._cell.finetune, folder / DATA, folder / "finetune", console)

    def _told(self, tune: bool) -> bool:
        """Return what the first process says."""
        import torch
        from accelerate import PartialState
        from accelerate.utils import broadcast_object_list

        on_cpu = self._cell.finetune.device == "cpu" or not torch.accelerator.is_available()
        PartialState(cpu=on_cpu)  # as Trainer's; it connects the processes
        said = [tune]
        broadcast_object_list(said)
        return said[0]
