"""A real Ray cluster of two nodes on this machine; ``benchmarks/ray/run.py`` has three nodes."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from response_tuning.cli.launchers import log_of
from response_tuning.cli.launchers import ray as launcher
from response_tuning.cli.launchers.job import Job
from response_tuning.cli.launchers.resources import Resources
from response_tuning.errors import ConfigError

ray: Any = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")
    head = NODE | {"node_ip_address": "127.0.0.2", "include_dashboard": False}
    started = Cluster(initialize_head=True, head_node_args=head)
    monkeypatch.setenv("RAY_ADDRESS", started.address)
    yield started
    ray.shutdown()
    started.shutdown()


def job(out: Path, cell: str, shell: str) -> Job:
    return Job(cell, ("sh", "-c", shell), log_of(out, cell))


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_job_whose_node_is_killed_runs_on_another_one_and_the_launcher_ends(
    cluster: Any, tmp_path: Path
) -> None:
    node = cluster.add_node(**NODE, node_ip_address="127.0.0.3")
    cluster.wait_for_nodes()
    # Jobs wait until both nodes have one.
    begun = tmp_path / "begun"
    begun.mkdir()
    shell = (
        f"touch {begun}/$$; echo begun; while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; echo done"
    )
    jobs = [job(tmp_path, f"rt/seed-{n}", shell) for n in range(2)]
    jobs.append(job(tmp_path, "it/seed-0", "echo broken; exit 2"))

    def kill() -> None:
        while len([*begun.iterdir()]) < 2:
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)
        while all(Path("/proc", one.name).exists() for one in begun.iterdir()):
            time.sleep(0.05)  # a job ends with its node
        (tmp_path / "go").touch()

    killer = threading.Thread(target=kill)
    killer.start()
    ended = [*launcher.launch(jobs, Resources())]
    killer.join()
    assert sorted(ended) == ["it/seed-0", "rt/seed-0", "rt/seed-1"]
    printed = sorted(one.log.read_text() for one in jobs)
    assert printed == ["begun\nbegun\ndone\n", "begun\ndone\n", "broken\n"]


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.2:1", "127.0.0.2:port"])
def test_an_address_without_a_cluster_is_one_line(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError) as raised:
        next(launcher.launch([], Resources()))
    line = str(raised.value)
    assert line.startswith(f"--launcher ray: RAY_ADDRESS={address}: ")
    assert line.endswith("; start a cluster with 'ray start --head'")
    assert "\n" not in line
