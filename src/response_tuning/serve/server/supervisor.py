"""The parent of a model's process, so that no model outlives the command that serves it.

It is a small process of its own, which ends the model's when ``rtune serve`` is gone, killed or
not: a server of another project cannot look for that itself.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

_LOOK_S = 0.5
GRACE_S = 5.0
"""Seconds that a model's process has to end by itself."""


def supervise(command: Sequence[str], parent: int) -> None:
    """Run ``command`` until it ends, or the process ``parent`` does; this leads a process group."""
    # A handler and not SIG_IGN, which the command would inherit.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while child.poll() is None:
        if os.getppid() != parent:
            end_groups({os.getpgid(0): child})
        with suppress(subprocess.TimeoutExpired):
            child.wait(_LOOK_S)


def end_groups(processes: "Mapping[int, subprocess.Popen[bytes]]") -> None:
    """End process groups, each with a process in it whose end is waited for.

    All get SIGTERM at once, and what is left of them SIGKILL, at the latest after ``GRACE_S``.
    """
    _signal(processes, signal.SIGTERM)
    until = time.monotonic() + GRACE_S
    for process in processes.values():
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))
    _signal(processes, signal.SIGKILL)


def _signal(groups: Iterable[int], number: signal.Signals) -> None:
    for group in groups:
        with suppress(ProcessLookupError):
            os.killpg(group, number)
