"""What Slurm says about jobs: by ``squeue``, and in the environment of a job's processes.

Many clusters have no accounting (``sacct``), which would say what became of a job.
"""

import os
import subprocess

_FIRST_PORT, _PORTS = 20_000, 12_000
"""Below the ports that Linux gives to outgoing connections."""


def queue(*flags: str) -> dict[str, str] | None:
    """Return job -> state of what waits or runs; None if Slurm does not answer right now.

    An element of an array is called ``ARRAY_INDEX``, as submitit calls it.
    """
    me = ["--user", os.environ["USER"]] if "USER" in os.environ else []
    command = ["squeue", "--noheader", "--array", "--format", "%i %T", *me, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    return dict(line.split() for line in done.stdout.splitlines())


def this_job() -> str:
    """Return the name of the job that this process runs in; empty outside Slurm."""
    array, index = (os.environ.get(f"SLURM_ARRAY_{part}") for part in ("JOB_ID", "TASK_ID"))
    return f"{array}_{index}" if array else os.environ.get("SLURM_JOB_ID", "")


def is_running(job: str) -> bool:
    """Whether Slurm still calls a job running: it was preempted, and neither cancelled nor late."""
    return bool(job) and (queue("--jobs", job) or {}).get(job) == "RUNNING"


def this_node() -> int:
    """Return the place of this node among those of its job."""
    return int(os.environ.get("SLURM_NODEID", "0"))


def meeting() -> dict[str, str]:
    """Return what torchrun reads on a node of several: where they meet, and which node this is.

    They meet on the node that ``srun`` ran on, which is the first one of a batch job. Its address
    is Slurm's, so that no name has to be resolved.
    """
    if os.environ.get("SLURM_NNODES", "1") == "1":
        return {}
    return {
        "PET_MASTER_ADDR": os.environ["SLURM_LAUNCH_NODE_IPADDR"],
        # Two jobs may share a node.
        "PET_MASTER_PORT": str(_FIRST_PORT + int(os.environ["SLURM_JOB_ID"]) % _PORTS),
        "PET_NODE_RANK": str(this_node()),
    }
