"""A job: one cell's shell line, and where it prints to."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PR_SET_PDEATHSIG = 1
_LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


@dataclass
class Job:
    """The line of one cell."""

    cell: str
    line: tuple[str, ...]
    log: Path
    process: "subprocess.Popen[bytes] | None" = field(default=None, repr=False)

    def start(self, environment: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
        """Start the line; what it prints is appended to the log. It ends with this process."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        inherited = {key: value for key, value in os.environ.items() if key not in _LAUNCHED}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.line,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=inherited | dict(environment or {}),
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
        return self.process

    def run(self, environment: Mapping[str, str] | None = None) -> int:
        """Run the line to its end, and return its exit code."""
        return self.start(environment).wait()

    def stop(self) -> None:
        """Have the line save what it has, and end; a signal's handler may call this."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        # Not ``wait``: its lock is not reentrant, and `run` holds it while a handler interrupts it.
        with contextlib.suppress(ChildProcessError):  # it is collected already
            os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOWAIT)
        self.process.poll()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the process behind: another machine starts its own."""
        return vars(self) | {"process": None}


def _end_with_parent() -> None:
    """Have the kernel send SIGTERM when the parent dies, by SIGKILL too; leave it its own signal.

    Slurm sends submitit's warning, SIGUSR2, to every process of a job, and it would end this one.
    """
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
