"""How a command ends when it is stopped from outside: in order, and with one line.

What is done is on the disk by then: journals grow line by line, and every other file is written
aside. A run that trains saves a checkpoint first; see ``finetune.checkpoints``.
"""

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_GOES_ON = "the same command goes on"
_SAID: dict[object, str] = {
    128 + signal.SIGINT: f"interrupted; {_GOES_ON}",
    128 + signal.SIGTERM: f"ended by SIGTERM; {_GOES_ON}",
}


@contextmanager
def ending_well() -> Iterator[None]:
    """End with one line and the shell's exit code on Ctrl-C (130) and SIGTERM (143).

    SIGUSR1, which batch systems send ahead of a time limit, ends nothing.
    """
    handlers = {"SIGTERM": _end, "SIGUSR1": _go_on}
    main = threading.current_thread() is threading.main_thread()
    names = [name for name in handlers if main and hasattr(signal, name)]
    before = {name: signal.signal(signal.Signals[name], handlers[name]) for name in names}
    try:
        yield
    except KeyboardInterrupt:
        _say(130)
        sys.exit(130)
    except SystemExit as ended:
        if ended.code in _SAID:  # by Typer, which turns Ctrl-C into 130, or by a handler
            _say(ended.code)
        raise
    finally:
        for name, handler in before.items():
            signal.signal(signal.Signals[name], handler)


def _say(code: object) -> None:
    sys.stderr.write(f"rtune: {_SAID[code]}\n")


def _end(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _go_on(number: int, frame: object) -> None:
    logger.warning("SIGUSR1: what is done is on the disk already; going on")
