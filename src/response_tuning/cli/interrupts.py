"""A command that is stopped from outside cleans up and prints one line.

Finished work is on disk by then: journals grow line by line, and every other file is written under
another name first. A run that trains saves a checkpoint; see ``finetune.checkpoints``.
"""

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_NEXT = "run the same command to continue"
_LINES: dict[object, str] = {
    128 + signal.SIGINT: f"interrupted; {_NEXT}",
    128 + signal.SIGTERM: f"ended by SIGTERM; {_NEXT}",
}
"""Exit code -> the line that is printed."""


@contextmanager
def ending_well() -> Iterator[None]:
    """End with one line and the shell's exit code on Ctrl-C (130) and SIGTERM (143).

    SIGUSR1, which batch systems send before a time limit, ends nothing.
    """
    handlers = {"SIGTERM": _end, "SIGUSR1": _ignore}
    # Python sets signal handlers in the main thread only, and Windows has no SIGUSR1.
    main = threading.current_thread() is threading.main_thread()
    names = [name for name in handlers if main and hasattr(signal, name)]
    before = {name: signal.signal(signal.Signals[name], handlers[name]) for name in names}
    try:
        yield
    except KeyboardInterrupt:
        _print_line(130)
        sys.exit(130)
    except SystemExit as ended:
        if ended.code in _LINES:  # from Typer, which turns Ctrl-C into 130, or from a handler
            _print_line(ended.code)
        raise
    finally:
        for name, handler in before.items():
            signal.signal(signal.Signals[name], handler)


def _print_line(code: object) -> None:
    sys.stderr.write(f"rtune: {_LINES[code]}\n")


def _end(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _ignore(number: int, frame: object) -> None:
    logger.warning("SIGUSR1: finished work is on disk; continuing")
