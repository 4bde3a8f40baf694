import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from response_tuning.data.workers import available, workers
from response_tuning.errors import DataError

WAIT_S = 60


def test_results_come_in_the_order_of_the_items() -> None:
    for processes in (1, 2):
        with workers(processes) as apply:
            assert list(apply(divmod, [7, 8, 9], [2, 3, 4])) == [(3, 1), (2, 2), (2, 1)]


def test_there_is_at_least_one_processor() -> None:
    assert 1 <= available() <= (os.cpu_count() or 1)


def test_a_killed_worker_is_one_line_with_the_next_step() -> None:
    with (
        pytest.raises(DataError, match=r"killed, perhaps because memory ran out.*--processes"),
        workers(2) as apply,
    ):
        list(apply(signal.raise_signal, [signal.SIGKILL]))


LOADED: list[int] = []


def load() -> None:
    """Load something that takes memory, as a tokenizer does."""
    LOADED.append(os.getpid())


def loaded(_: int) -> tuple[list[int], int]:
    return LOADED, os.getpid()


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
def test_what_is_loaded_once_is_in_every_worker() -> None:
    with workers(2, load) as apply:
        found = list(apply(loaded, range(8)))
    loaders = {tuple(by) for by, _ in found}
    assert len(loaders) == 1
    (loader,) = loaders.pop()
    assert loader not in {os.getpid(), *(pid for _, pid in found)}
    assert not LOADED


def fail() -> None:
    raise DataError("no such tokenizer")


def test_what_cannot_be_loaded_is_the_error_of_the_first_call() -> None:
    with pytest.raises(DataError, match=r"^no such tokenizer$"), workers(2, fail) as apply:
        list(apply(divmod, [7], [2]))


def test_a_bug_in_a_worker_names_the_line_that_failed() -> None:
    with pytest.raises(ZeroDivisionError) as raised, workers(2) as apply:
        list(apply(divmod, [7], [0]))
    assert any("ZeroDivisionError" in note for note in raised.value.__notes__)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="reads /proc")
def test_workers_end_when_the_first_process_is_killed() -> None:
    code = (
        "import os, time\n"
        "from response_tuning.data.workers import workers\n"
        "if __name__ == '__main__':\n"
        "    with workers(2) as apply:\n"
        "        pids = set(apply(os.getpgid, [0] * 8))\n"
        "        def below(pid):\n"
        "            found = open(f'/proc/{pid}/task/{pid}/children').read().split()\n"
        "            return found + [one for child in found for one in below(child)]\n"
        "        print(*below(os.getpid()), flush=True)\n"
        "        list(apply(time.sleep, [600, 600]))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        children = first.stdout.readline().split()
        assert len(children) >= 3, "the loader and two workers"
        first.kill()
    deadline = time.monotonic() + WAIT_S
    while left := [pid for pid in children if _is_running(pid)]:
        assert time.monotonic() < deadline, f"{left} outlive the process that started them"
        time.sleep(0.05)


def _is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
