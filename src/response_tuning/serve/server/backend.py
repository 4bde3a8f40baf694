"""The processes that run the models: started together, watched, and ended together."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from response_tuning.errors import ModelError
from response_tuning.serve.server.children import KEY, command
from response_tuning.serve.server.front import ServedModel
from response_tuning.serve.server.supervisor import end_groups

START_S = 1800.0
"""Seconds that a model has to load: vLLM compiles for minutes."""
_LOOK_S, _REPLY_S = 0.1, 5.0
_LOG_LINES = 3
_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Launch(NamedTuple):
    """A model, and the command that serves it at its address."""

    model: ServedModel
    command: Sequence[str]
    environment: Mapping[str, str] = {}


class Backends:
    """The running processes."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ended = False

    def start(self, launch: Launch, key: str) -> None:
        """Start a process; ``wait`` says when it answers."""
        supervised = command(
            sys.executable,
            "response_tuning.serve.server.supervisor.supervise",
            [*launch.command],
            os.getpid(),
        )
        with self._log(launch.model.name).open("wb") as log:
            self._running[launch.model.name] = subprocess.Popen(
                supervised,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **launch.environment, KEY: key},
                start_new_session=True,  # Ctrl-C reaches rtune alone, which ends the others
            )

    def wait(self, model: ServedModel) -> None:
        """Return as soon as a model answers.

        Raises:
            ModelError: its process has ended, or needs too long.
        """
        until = time.monotonic() + START_S
        while not _is_healthy(model.url):
            if not self.is_running(model.name) or time.monotonic() > until:
                raise ModelError(
                    f"{model.name}: {model.program} cannot serve it: {self._last(model.name)}"
                )
            time.sleep(_LOOK_S)

    def is_running(self, name: str) -> bool:
        """Whether a model's process has not ended."""
        return self._running[name].poll() is None

    def end(self) -> None:
        """End all processes; a second call does nothing."""
        groups = {process.pid: process for process in self._running.values()}
        if not self._ended:
            self._ended = True
            end_groups(groups)
            for process in groups.values():
                process.wait()

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _last(self, name: str) -> str:
        text = self._log(name).read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        return " / ".join(lines[-_LOG_LINES:]) or "it ended without a word"


@contextmanager
def running(launches: Sequence[Launch], logs: Path, key: str) -> Iterator[Backends]:
    """Run the models inside the block; all load at the same time.

    Raises:
        ModelError: one cannot be served.
    """
    backends = Backends(logs)
    try:
        for launch in launches:
            backends.start(launch, key)
        for launch in launches:
            backends.wait(launch.model)
        yield backends
    finally:
        backends.end()


def free_port() -> int:
    """Return a port of loopback that is free now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _is_healthy(url: str) -> bool:
    try:
        with _NO_PROXY.open(f"{url}/health", timeout=_REPLY_S) as reply:
            return bool(reply.status == 200)
    except OSError:  # not there yet, or HTTP 503 while it loads
        return False
