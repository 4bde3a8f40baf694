"""What a person sees while waiting: bars in a terminal, now and then a line elsewhere."""

import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import category

if TYPE_CHECKING:
    from rich.console import Console


PLAIN_EVERY_S = 10.0
"""Seconds between progress lines when the output is not a terminal."""
_STEERING = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories: control characters, halves of surrogate pairs, exotic line breaks."""
_REORDERING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Marks that change the order in which a line is read; other format characters shape emoji."""


def console(*, stderr: bool = False) -> "Console":
    """Return the console that a command speaks through; what it prints cannot steer a terminal."""
    from rich.console import Console
    from rich.text import Text

    class Plain(Console):
        def print(self, *objects: Any, **how: Any) -> None:  # noqa: ANN401 - as Console's
            super().print(*map(safe, objects), **how)

    def safe(printed: object) -> object:
        if isinstance(printed, str):
            return printable(printed)
        if isinstance(printed, Text) and printed.plain != printable(printed.plain):
            return Text(printable(printed.plain), style=printed.style)
        return printed

    # Under torchrun only the first process speaks. Words of the data are never read as markup.
    return Plain(markup=False, stderr=stderr, quiet=os.environ.get("RANK", "0") != "0")


class _Printable(logging.Formatter):
    """Warnings may quote what a file says."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def log_to_stderr() -> None:
    """Show warnings as lines that begin with ``rtune:``."""
    shown = logging.StreamHandler()
    shown.setFormatter(_Printable("rtune: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[shown])


@contextmanager
def progress_bar(what: str, console: "Console") -> Iterator[Callable[[int, int], None]]:
    """Show (done, all) as a bar in a terminal, and as one line every ten seconds elsewhere."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn(what), MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    shown = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)

        def advance(done: int, total: int) -> None:
            nonlocal shown
            bar.update(task, completed=done, total=total)
            if not console.is_terminal and time.monotonic() - shown >= PLAIN_EVERY_S:
                shown = time.monotonic()
                console.print(f"{what}: {done:,} of {total:,}", highlight=False)

        yield advance


def quiet_libraries() -> None:
    """Leave the talking to us: no bars and no advice from the libraries underneath."""
    # PEFT 0.21 asks transformers 5.23 under a name that it has deprecated.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("httpx").setLevel(logging.WARNING)


def printable(text: str) -> str:
    r"""Return foreign text with its control characters spelt out, such as ``\x1b``.

    What a model, a server or a file says may hold escape sequences that move the cursor, rename
    the window or write to the clipboard, and marks that reverse the reading order. Line breaks and
    tabs stay.
    """
    return "".join(_spelt(character) for character in text)


def _spelt(character: str) -> str:
    if character in "\n\t":
        return character
    if character in _REORDERING or category(character) in _STEERING:
        return character.encode("unicode_escape").decode()
    return character


def prepare_streams() -> None:
    """Make sure that what is printed can be printed, whatever the shell has left us.

    A character that the terminal's encoding lacks is spelt out. A closed input or error stream
    becomes empty: the next file that is opened would else take its place, and its text.

    Raises:
        SystemExit: standard output is closed; code 2, after one line.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdin = sys.stdin or Path(os.devnull).open()  # noqa: SIM115 - open until the end
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    if sys.stdout is None:
        sys.stderr.write("rtune: standard output is closed; send it to a file or to /dev/null\n")
        sys.exit(2)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # for who reads it to say what is wrong
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
