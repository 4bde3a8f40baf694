"""A real Ray cluster of three nodes on this machine: 8 cells of the miniature, one node killed.

The cells are those of ``benchmarks/slurm/grid.yaml``. One command runs them all; while a cell on a
worker node is being tuned, its raylet gets SIGKILL, as when the machine goes. ``results.csv`` must
equal that of a local run, byte for byte.

    python benchmarks/ray/run.py     # needs: pip install 'response-tuning[ray]'
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

RECIPE = Path(__file__).parents[1] / "slurm" / "grid.yaml"
NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
"""A node; the object store is small, since cells put nothing into it."""
ADDRESSES = ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
"""The first one is the head's. Ray replaces 127.0.0.1 with the machine's address in the network."""


def main() -> None:
    """Run the cells here and on the cluster, and compare the reports."""
    # Ray's 15 would wait for everything else on a busy machine.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - Ray's spelling
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        local, run = Path(scratch, "local"), Path(scratch, "run")
        Command(local).end()
        print(f"[{time.monotonic() - began:.0f} s] 8 cells on this machine")
        head, *others = [NODE | {"node_ip_address": address} for address in ADDRESSES]
        cluster = Cluster(initialize_head=True, head_node_args=head | {"include_dashboard": False})
        try:
            nodes = [cluster.add_node(**node) for node in others]
            cluster.wait_for_nodes()
            print(f"[{time.monotonic() - began:.0f} s] {len(ADDRESSES)} nodes, {ADDRESSES}")
            command = Command(run, cluster.address)
            cell, node = _tuning(run, nodes, command)
            cluster.remove_node(node, allow_graceful=False)
            print(f"[{time.monotonic() - began:.0f} s] killed: the node that was tuning {cell}")
            command.end()
        finally:
            cluster.shutdown()
        print(f"[{time.monotonic() - began:.0f} s] the same command ended, exit code 0")
        print((run / ".jobs" / f"{cell}.log").read_text())
        csv = "report/results.csv"
        if (local / csv).read_bytes() != (run / csv).read_bytes():
            sys.exit("results.csv: other bytes than on this machine")
        print("results.csv: the same bytes as on this machine")


class Command:
    """``rtune run`` of the cells, at work; on a cluster, if it has an address."""

    def __init__(self, out: Path, address: str = "") -> None:
        words = ["run", str(RECIPE), "--out", str(out), *(["--launcher", "ray"] if address else [])]
        self._log = out.with_suffix(".txt")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "response_tuning", *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"RAY_ADDRESS": address},
            )

    def end(self) -> None:
        """Wait for the end, and stop here if it failed."""
        code = self.process.wait()
        print(self._log.read_text())
        if code:
            sys.exit(f"exit code {code}")


def _tuning(run: Path, nodes: list[Any], command: Command) -> tuple[str, Any]:
    """Wait for a cell that a worker node tunes and that has a checkpoint; return both."""
    raylets = {node.all_processes["raylet"][0].process.pid: node for node in nodes}
    while command.process.poll() is None:
        for checkpoint in run.glob("*/seed-*/finetune/checkpoints/*/complete"):
            cell = checkpoint.parents[3]
            holder = cell / ".holder.json"
            if holder.exists():
                line = int(json.loads(holder.read_text())["pid"])
                raylet = _parent(_parent(line))  # a line is a child of Ray's worker
                if raylet in raylets:
                    return str(cell.relative_to(run)), raylets[raylet]
        time.sleep(0.2)
    command.end()
    sys.exit("the command ended before a worker node had saved a checkpoint")


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:  # it has just ended
        return 0


if __name__ == "__main__":
    main()
