"""``--launcher slurm``: cells are a job array, which submitit submits and requeues."""

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from typing import Any

from response_tuning.cli.launchers.job import Job
from response_tuning.cli.launchers.queue import is_running, meeting, queue, this_job, this_node
from response_tuning.cli.launchers.resources import Resources

ASK_AGAIN_S = 5.0


class Line:
    """What submitit pickles for a node, and calls there: the job, which is a shell line."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __call__(self) -> int:
        """Run the line; if Slurm preempts it by SIGTERM, requeue it without leaving a result."""
        told: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
        if node := this_node():  # two machines cannot append to one file of a network disk
            self.job.log = self.job.log.with_suffix(f".node-{node}.log")
        code = self.job.run(meeting())
        if told and is_running(name := this_job()):  # and not cancelled, or out of time
            subprocess.run(["scontrol", "requeue", name], check=False)
            while True:  # until Slurm ends it; its signals wake this process
                signal.pause()
        return code

    def checkpoint(self) -> Any:  # noqa: ANN401 - submitit's type
        """Have the line save a checkpoint; submitit, which got a warning, requeues the job."""
        from submitit.helpers import DelayedSubmission

        self.job.stop()
        return DelayedSubmission(self)


def launch(jobs: Sequence[Job], resources: Resources, cluster: str = "slurm") -> Iterator[str]:
    """Submit the jobs, and yield the cell of each that left the queue; all stay if this ends."""
    import submitit

    folder = jobs[0].log.parents[1] / "slurm"
    executor = submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=1000)
    executor.update_parameters(name="rtune", **resources.of_submitit)
    with executor.batch():
        sent = [(job.cell, executor.submit(Line(job))) for job in jobs]
    while sent:
        queued = queue() if cluster == "slurm" else None
        for cell, job in [*sent]:
            # Without accounting, submitit cannot say what became of a job that left no result.
            left = queued is not None and job.job_id not in queued
            if left or (job.done() if cluster != "slurm" else job.paths.result_pickle.exists()):
                sent.remove((cell, job))
                yield cell
        time.sleep(ASK_AGAIN_S if cluster == "slurm" else 0.2)
