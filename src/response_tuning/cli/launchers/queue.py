"""Slurm's queue, as ``squeue`` prints it. Many clusters have no accounting (``sacct``)."""

import os
import subprocess


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
