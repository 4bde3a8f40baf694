"""Processes of a launcher such as torchrun, all of which run the same command."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from response_tuning.errors import ConfigError


def is_first() -> bool:
    """Whether this process is the one that writes for all."""
    return os.environ.get("RANK", "0") == "0"


def world_size() -> int:
    """Return the number of processes, on all nodes together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_world_size() -> int:
    """Return the number of processes on this node."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", str(world_size())))


def check_launcher() -> None:
    """Refuse ``accelerate launch --cpu --num_processes 2``: it starts one process and no more.

    It sets the address at which several would meet, and no process gets a rank.

    Raises:
        ConfigError: this process was started so; the line names a command that works.
    """
    launched = os.environ.get("ACCELERATE_USE_CPU", "false").lower() == "true"
    if not launched or "MASTER_ADDR" not in os.environ or "WORLD_SIZE" in os.environ:
        return
    script = Path(sys.argv[0])
    if script.name == "__main__.py":
        command = f"-m {script.parent.name}"
    else:
        command = str(script) if script.suffix == ".py" else "-m response_tuning"
    raise ConfigError(
        "'accelerate launch --cpu' starts one process, however many are asked for; use: torchrun "
        f"--nproc-per-node 2 {' '.join([command, *sys.argv[1:]])}"
    )


@contextmanager
def first_process_first(*, on_cpu: bool) -> Iterator[None]:
    """Under torchrun, let one process prepare the data; the others wait and find it ready.

    One on all nodes, which share the disk: a first process on each would write the same files.
    """
    if world_size() == 1:
        yield
        return
    import torch
    from accelerate import PartialState

    with PartialState(cpu=on_cpu or not torch.accelerator.is_available()).main_process_first():
        yield
