"""``--launcher ray``: cells are tasks of a Ray cluster; a task whose node dies runs elsewhere."""

import os
import socket
from collections.abc import Iterator, Sequence
from typing import Any

from response_tuning.cli.launchers.job import Job
from response_tuning.cli.launchers.resources import Resources
from response_tuning.errors import ConfigError

_CONNECT_S = 10.0


def launch(jobs: Sequence[Job], resources: Resources) -> Iterator[str]:
    """Run the jobs on the cluster of ``RAY_ADDRESS``, or of this node; yield cells as they end.

    Raises:
        ConfigError: there is no cluster.
    """
    import ray

    try:
        ray.init(
            os.environ.get("RAY_ADDRESS", "auto"), log_to_driver=False, logging_level="WARNING"
        )
    except (ConnectionError, ValueError) as error:
        raise ConfigError(f"--launcher ray: {error}; start it with 'ray start --head'") from error
    memory = {"memory": int(resources.memory_gb * 1e9)} if resources.memory_gb else {}
    task = ray.remote(Job.run).options(
        num_gpus=resources.gpus, num_cpus=resources.cpus or 1, max_retries=-1, **memory
    )
    waiting = list(jobs)
    running: dict[Any, str] = {}
    while waiting or running:
        while waiting and len(running) < (resources.at_once or len(jobs)):
            job = waiting.pop(0)
            running[task.remote(job)] = job.cell
        (ended,), _ = ray.wait([*running])
        yield running.pop(ended)


def _check(address: str) -> None:
    """Connect to ``HOST:PORT``: Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and "//" not in address:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
