"""Several processes for one run on one machine: the same command, started several times."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def same_command(times: int) -> Iterator[Callable[[], None]]:
    """Start this very command ``times`` more; yield a function that waits until they have ended.

    They print nothing: what one of them cannot do, this process tries too, and says why it fails.
    They end with this process.
    """
    command = [sys.executable, "-m", "response_tuning", *sys.argv[1:], "--jobs", "1"]
    silent = subprocess.DEVNULL
    others = [
        subprocess.Popen(command, stdin=silent, stdout=silent, stderr=silent) for _ in range(times)
    ]

    def wait() -> None:
        for other in others:
            other.wait()

    try:
        yield wait
    finally:
        for other in others:
            other.terminate()
        wait()
