"""``--launcher ray``: cells are tasks of a Ray cluster; a task whose node dies runs elsewhere."""

import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from response_tuning.cli.launchers.job import Job
from response_tuning.cli.launchers.resources import Resources
from response_tuning.errors import ConfigError

_LOG = logging.getLogger(__name__)
_CONNECT_S = 10.0


def launch(jobs: Sequence[Job], resources: Resources) -> Iterator[str]:
    """Run the jobs on the cluster of ``RAY_ADDRESS``, or of this node; yield cells as they end.

    Raises:
        ConfigError: there is no cluster.
    """
    import ray

    address = os.environ.get("RAY_ADDRESS", "auto")
    try:
        _check(address)
        ray.init(address, log_to_driver=False, logging_level="WARNING")
    except (OSError, ValueError) as error:
        found = f"--launcher ray: RAY_ADDRESS={address}: {error}"
        raise ConfigError(f"{found}; start a cluster with 'ray start --head'") from error
    wanted = {"GPU": resources.gpus, "CPU": resources.cpus or 1}
    memory = {"memory": int(resources.memory_gb * 1e9)} if resources.memory_gb else {}
    if not any(has(node, wanted | memory) for node in ray.nodes()):
        _LOG.warning("no node of the cluster has %s; cells wait for one", wanted | memory)
    task = ray.remote(Job.run).options(
        num_gpus=wanted["GPU"], num_cpus=wanted["CPU"], max_retries=-1, **memory
    )
    waiting = list(jobs)
    running: dict[Any, str] = {}
    while waiting or running:
        while waiting and len(running) < (resources.at_once or len(jobs)):
            job = waiting.pop(0)
            running[task.remote(job)] = job.cell
        (ended,), _ = ray.wait([*running])
        yield running.pop(ended)


def has(node: Mapping[str, Any], wanted: Mapping[str, float]) -> bool:
    """Whether a node is alive and has so much of each resource when it is idle."""
    found = node["Resources"]
    return node["Alive"] and all(found.get(name, 0) >= wanted[name] for name in wanted)


def _check(address: str) -> None:
    """Connect to ``HOST:PORT``: Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and "//" not in address:
        socket.create_connection((host, int(port)), _CONNECT_S).close()
