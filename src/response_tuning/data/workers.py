"""Functions that several processes call at once, with their results in order."""

import gc
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any, Protocol, TypeVar

from response_tuning.errors import DataError, ResponseTuningError

T = TypeVar("T")
_START = "fork" if sys.platform == "linux" else "spawn"
"""How workers are started: forked ones share the memory of what was loaded before."""
_KILLED = (
    "a worker process was killed, perhaps because memory ran out; the same command goes on where "
    "it stopped: give it fewer --processes"
)


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


def _nothing() -> None:
    pass


@contextmanager
def workers(processes: int, load: Callable[[], object] = _nothing) -> Iterator[Apply]:
    """Yield a ``map`` over this many processes; with one, it runs in this process.

    Functions and items must be picklable. At the first call, a loader is started: a new process,
    which calls ``load`` and starts the workers as copies of itself, so that all of them share one
    tokenizer. It is forked there and not here, because it has no thread yet that a fork would lose.

    Raises:
        DataError: a process was killed; raised inside the block, as the errors of ``load`` are.
    """
    if processes == 1:
        yield here
        return
    loader = _Loader(processes, load)
    try:
        yield loader.apply
    finally:
        loader.end()


class _Loader:
    """The process that starts the workers, as this process sees it."""

    def __init__(self, processes: int, load: Callable[[], object]) -> None:
        self._job = processes, load
        self._begun: tuple[Connection, Any] | None = None

    def apply(self, function: Callable[..., T], /, *items: Iterable[Any]) -> Iterator[T]:
        channel = self._channel()
        with suppress(OSError):  # it has ended: what it sent before says why
            channel.send((function, [[*each] for each in items]))
        while True:
            try:
                reply = channel.recv()
            except (EOFError, OSError) as error:
                raise DataError(_KILLED) from error
            if reply is None:
                return
            worked, value = reply
            if not worked:
                raise value
            yield value

    def _channel(self) -> Connection:
        if self._begun is None:
            context = multiprocessing.get_context("spawn")
            channel, other = context.Pipe()
            process = context.Process(target=_serve, args=(other, *self._job))
            process.start()
            other.close()
            self._begun = channel, process
        return self._begun[0]

    def end(self) -> None:
        """Let the workers end what they have begun, and wait for that."""
        if self._begun is not None:
            channel, process = self._begun
            channel.close()
            process.join()


def _serve(channel: Connection, processes: int, load: Callable[[], object]) -> None:
    """Be the loader: have workers call what the first process asks for, until it hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Each process has a core: more threads would only wait for one another.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context(_START), _begin)
    with suppress(EOFError, OSError):  # the first process has hung up
        try:
            load()
            gc.freeze()  # a collection would write to memory that workers share until then
            pool.submit(_nothing).result()  # starts all; from here on, this process has threads
            Thread(target=_end_with_parent, daemon=True).start()
            while True:
                function, items = channel.recv()
                for value in pool.map(function, *items):
                    channel.send((True, value))
                channel.send(None)
        except EOFError:
            raise
        except BrokenProcessPool:
            channel.send((False, DataError(_KILLED)))
        except Exception as error:  # noqa: BLE001 - raised again in the first process
            if not isinstance(error, ResponseTuningError):
                error.add_note(traceback.format_exc())
            channel.send((False, error))
    pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Prepare a worker: Ctrl-C is the first process's, and a worker ends when the loader does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
