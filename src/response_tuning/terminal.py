"""The console of every command: sanitised output, progress bars, warnings, usable streams."""

import io
import logging
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import category

from response_tuning.errors import ConfigError
from response_tuning.redaction import redacted

if TYPE_CHECKING:
    from rich.console import Console


PLAIN_EVERY_S = 10.0
"""Seconds between progress lines when the output is not a terminal."""
_CONTROL_CATEGORIES = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories: control characters, halves of surrogate pairs, exotic line breaks."""
_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that change the reading order of a line; other format characters shape emoji."""

_COMMAND: ContextVar[str] = ContextVar("command", default="")


@contextmanager
def noted_command(words: Sequence[str]) -> Iterator[None]:
    """Record the command line that runs, without secrets; ``words`` begin with its name."""
    before = _COMMAND.set(redacted(shlex.join(words)))
    try:
        yield
    finally:
        _COMMAND.reset(before)


def command() -> str:
    """Return the command line that runs, for the record of a run; empty in a library call."""
    return _COMMAND.get()


def console(*, stderr: bool = False) -> "Console":
    """Return the console that a command prints to; it spells out control characters."""
    from rich.console import Console
    from rich.text import Text

    class Sanitised(Console):
        def print(self, *objects: Any, **how: Any) -> None:  # noqa: ANN401 - as Console's
            super().print(*map(sanitised, objects), **how)

    def sanitised(printed: object) -> object:
        if isinstance(printed, str):
            return printable(printed)
        # A Text's styles refer to positions, which spelling out would move: its base style remains.
        if isinstance(printed, Text) and printed.plain != printable(printed.plain):
            return Text(printable(printed.plain), style=printed.style)
        return printed

    # Under torchrun only the first process prints. Text of the data is never read as markup.
    return Sanitised(markup=False, stderr=stderr, quiet=os.environ.get("RANK", "0") != "0")


def write(text: str) -> None:
    """Write a piece of a line, sanitised; the console would expand its tabs."""
    sys.stdout.write(printable(text))
    sys.stdout.flush()


class _Printable(logging.Formatter):
    """Warnings may quote a file."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def log_to_stderr() -> None:
    """Show warnings as lines that begin with ``rtune:``."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Printable("rtune: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


@contextmanager
def progress_bar(what: str, console: "Console") -> Iterator[Callable[[int, int], None]]:
    """Show (done, all) as a bar in a terminal, and as a line every ten seconds elsewhere."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(what), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    printed_at = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def advance(done: int, total: int) -> None:
            nonlocal printed_at
            bar.update(task, completed=done, total=total)
            # A log file gets whole lines, and few of them.
            if not console.is_terminal and time.monotonic() - printed_at >= PLAIN_EVERY_S:
                printed_at = time.monotonic()
                console.print(f"{what}: {done:,} of {total:,}", highlight=False)

        yield advance


def hide_known_warnings() -> None:
    """Hide warnings of one library about another, which no user can act on."""
    # PEFT 0.21 calls transformers 5.23 by a deprecated name.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
    # It looks beside the base for a vocabulary of another size. No run changes that size.
    warnings.filterwarnings("ignore", r"Could not find a config file in .*\.gguf")


def quiet_libraries() -> None:
    """Hide the progress bars and the advice of the libraries."""
    hide_known_warnings()
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("httpx").setLevel(logging.WARNING)


def printable(text: str) -> str:
    r"""Return foreign text with its control characters spelled out, such as ``\x1b``.

    The text of a model, a server or a file may hold escape sequences that move the cursor, rename
    the window or write to the clipboard, and marks that reverse the reading order. Line breaks and
    tabs stay.
    """
    return "".join(_spelled_out(character) for character in text)


def _spelled_out(character: str) -> str:
    if character in "\n\t":
        return character
    if character in _REORDERING or category(character) in _CONTROL_CATEGORIES:
        return character.encode("unicode_escape").decode()
    return character


def prepare_streams() -> None:
    """Make printing work with any encoding and with closed streams.

    A character that the terminal's encoding lacks is spelled out. A closed input or error stream
    becomes empty.

    Raises:
        ConfigError: standard output is closed.
    """
    # The system gives the next opened file the lowest free number. If 0, 1 or 2 were free, a file
    # of ours would receive the libraries' output; so fill them.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdin = sys.stdin or Path(os.devnull).open()  # noqa: SIM115 - open until the end
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    if sys.stdout is None:
        raise ConfigError("standard output is closed; send it to a file or to /dev/null")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # readers then report bad bytes
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
