"""``--launcher local``: cells are processes of this machine, so many at a time."""

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence

from response_tuning.cli.launchers.job import Job
from response_tuning.cli.launchers.resources import Resources
from response_tuning.errors import ConfigError

_ASK_AGAIN_S = 0.2


def launch(jobs: Sequence[Job], resources: Resources) -> Iterator[str]:
    """Run the jobs, each on GPUs of its own, and yield the cell of each that has ended."""
    devices = _devices(resources)
    free = deque(devices[: resources.at_once] if resources.at_once else devices)
    waiting, running = deque(jobs), dict[str, tuple[Job, str]]()
    try:
        while waiting or running:
            while waiting and free:
                job, device = waiting.popleft(), free.popleft()
                job.start({"CUDA_VISIBLE_DEVICES": device} if resources.gpus else None)
                running[job.cell] = job, device
            for cell, (job, _) in [*running.items()]:
                if job.process is not None and job.process.poll() is not None:
                    free.append(running.pop(cell)[1])
                    yield cell
            time.sleep(_ASK_AGAIN_S)
    finally:
        for job, _ in running.values():
            job.stop()


def _devices(resources: Resources) -> list[str]:
    """Return the GPUs of each place for a cell; without GPUs, the places alone."""
    if not resources.gpus:
        return [""] * (resources.at_once or 1)
    import torch

    found = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(
        map(str, range(torch.cuda.device_count()))
    )
    gpus = found.split(",") if found else []
    if len(gpus) < resources.gpus:
        raise ConfigError(f"--resources gpus={resources.gpus}: this machine has {len(gpus)}")
    each = resources.gpus
    return [",".join(gpus[n : n + each]) for n in range(0, len(gpus) - each + 1, each)]
