import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from response_tuning.errors import ModelError
from response_tuning.serve.server.backend import Launch, free_port, running
from response_tuning.serve.server.children import KEY, command
from response_tuning.serve.server.front import ServedModel

SERVER = """
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
open({written!r}, "w").write(f"{{os.getpid()}} {{os.environ['{key}']}} {{sys.argv}}")
HTTPServer(("127.0.0.1", {port}), Handler).serve_forever()
"""


def launch(folder: Path, name: str = "rt") -> Launch:
    port = free_port()
    code = SERVER.format(written=str(folder / f"{name}.txt"), key=KEY, port=port)
    model = ServedModel(name, "llama.cpp", f"http://127.0.0.1:{port}")
    return Launch(model, [sys.executable, "-c", code])


def written(folder: Path, name: str = "rt") -> Sequence[str]:
    return (folder / f"{name}.txt").read_text().split(" ", 2)


def wait_for_the_end(pid: int) -> None:
    """Return when a process is gone; pytest's own limit is the only one."""
    for _ in range(600):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} goes on")


def test_processes_run_inside_the_block_and_have_the_key_in_no_argument(tmp_path: Path) -> None:
    with running([launch(tmp_path, "rt"), launch(tmp_path, "it")], tmp_path, "secret") as backends:
        assert backends.is_running("rt") and backends.is_running("it")
        pids = [int(written(tmp_path, name)[0]) for name in ("rt", "it")]
        for name in ("rt", "it"):
            _, key, arguments = written(tmp_path, name)
            assert key == "secret" and "secret" not in arguments
    for pid in pids:
        wait_for_the_end(pid)


def test_a_process_that_ends_early_is_an_error_with_its_last_lines(tmp_path: Path) -> None:
    failing = launch(tmp_path, "it")._replace(
        command=[sys.executable, "-c", "import sys; sys.exit('a\\nb\\nno memory\\nleft')"]
    )
    with (
        pytest.raises(ModelError, match=r"it: llama\.cpp cannot serve it: b / no memory / left$"),
        running([launch(tmp_path, "rt"), failing], tmp_path, "secret"),
    ):
        raise AssertionError("it runs")
    wait_for_the_end(int(written(tmp_path)[0]))


def test_a_process_that_ends_later_is_seen(tmp_path: Path) -> None:
    with running([launch(tmp_path)], tmp_path, "secret") as backends:
        os.kill(int(written(tmp_path)[0]), signal.SIGKILL)
        for _ in range(600):
            if not backends.is_running("rt"):
                break
            time.sleep(0.05)
        assert not backends.is_running("rt")


def test_a_killed_command_leaves_no_process(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "from tests.serve.server.test_backend import launch\n"
        "from response_tuning.serve.server.backend import running\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "with running([launch(folder)], folder, 'secret'):\n"
        "    print('runs', flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == b"runs\n"
        parent.kill()
    wait_for_the_end(int(written(tmp_path)[0]))


def test_a_command_calls_a_function_with_its_arguments(tmp_path: Path) -> None:
    called = command(sys.executable, "response_tuning.terminal.write", 'it\'s "so"\n')
    done = subprocess.run(called, capture_output=True, text=True, check=True)
    assert done.stdout == 'it\'s "so"\n'
