"""The parent of a model's process, so that no model outlives the command that serves it.

It is a small process of its own, which ends the model's when ``rtune serve`` is gone, killed or
not: a server of another project cannot look for that itself.
"""

import os
import signal
import subprocess
from collections.abc import Sequence
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
            end_group(os.getpgid(0), child)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_LOOK_S)


def end_group(group: int, process: "subprocess.Popen[bytes]") -> None:
    """End a process group: SIGTERM, and SIGKILL to what is left when ``process`` has ended.

    Or when it has not ended in time.
    """
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_S)
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
