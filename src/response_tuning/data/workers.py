"""Functions that several processes call at once, with their results in order."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from threading import Thread
from typing import Any, Protocol, TypeVar

from response_tuning.errors import DataError

T = TypeVar("T")


class Apply(Protocol):
    """What ``map`` is, or the same with several processes."""

    def __call__(self, function: Callable[..., T], /, *items: Iterable[Any]) -> Iterator[T]:
        """Call a function with each item; yield the results in the order of the items."""


def here(function: Callable[..., T], /, *items: Iterable[Any]) -> Iterator[T]:
    """Call a function with each item in this process."""
    return map(function, *items)


def available() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def workers(processes: int) -> Iterator[Apply]:
    """Yield a ``map`` over this many processes; with one, it runs in this process.

    Function and items must be picklable. Processes are started afresh on every system: a fork of
    one whose tokenizer has threads may hang.

    Raises:
        DataError: a process was killed; raised inside the block.
    """
    if processes == 1:
        yield here
        return
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _begin)

    def apply(function: Callable[..., T], *items: Iterable[Any]) -> Iterator[T]:
        try:
            yield from pool.map(function, *items)
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process was killed, perhaps because memory ran out; the same command "
                "goes on where it stopped: give it fewer --processes"
            ) from error

    try:
        yield apply
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Prepare a worker: Ctrl-C is the first process's, and a worker ends when that one ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Each process has a core: more threads would only wait for one another.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    first = multiprocessing.parent_process()
    assert first is not None
    Thread(target=_end_with, args=(first,), daemon=True).start()


def _end_with(first: Any) -> None:  # noqa: ANN401 - multiprocessing has no public class for it
    first.join()
    os.kill(os.getpid(), signal.SIGTERM)
