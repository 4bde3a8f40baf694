"""Who works on a cell: a hidden file in its folder, for people and ``rtune status``.

It decides nothing; the folder's lock does. The lock goes with its process, however that ends, and
nobody can ask for its owner without taking it.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from response_tuning.artifacts import write_json

_FILE = ".holder.json"
_JOBS = ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_JOB_ID")


class Holder(NamedTuple):
    """A process that has a cell, or had it when it was killed."""

    host: str
    pid: int
    job: str
    """The job of a batch system that the process belongs to; empty without one."""
    steps: int
    """Optimizer steps that the cell had before the process took it."""

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}" + (f" (job {self.job})" if self.job else "")

    @property
    def has_ended(self) -> bool:
        """Whether it is known to have ended; of another machine, that is never known."""
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # another user's
            return False
        return False


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Note inside the block that this process works in ``folder``, whose lock it has."""
    file = folder / _FILE
    array, task, job = (os.environ.get(name, "") for name in _JOBS)
    job = f"{array}_{task}" if array else job
    holder = Holder(socket.gethostname(), os.getpid(), job, len(metrics_of(folder)))
    write_json(file, holder._asdict())
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


def holder_of(folder: Path) -> Holder | None:
    """Return who works in ``folder``; None if nobody does."""
    with suppress(OSError, ValueError, KeyError, TypeError):  # it may end right now
        found = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        return Holder(found["host"], found["pid"], found["job"], found["steps"])
    return None


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a cell's training steps so far."""
    file = folder / "finetune" / "metrics.jsonl"
    lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
    return [line for line in map(json.loads, lines) if "loss" in line]
