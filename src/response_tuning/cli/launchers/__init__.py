"""Launchers: what runs the shell line of each cell, on this machine or on a cluster.

The line is ``rtune run RECIPE --only CELL``, with torchrun in front where a cell wants several
processes. Everything else is on the disk: a cell that is started twice is done once, and what a
cell lacks is what its folder says. So a launcher only starts lines, and says which have ended.
"""

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.errors import ConfigError
from response_tuning.registry import unknown

if TYPE_CHECKING:
    from response_tuning.cli.launchers.job import Job
    from response_tuning.cli.launchers.resources import Resources

_PACKAGES = {"slurm": "submitit", "ray": "ray"}
"""What a launcher is made of; an extra of its name installs it."""
JOBS = ".jobs"
"""The folder of logs and of submitit's files, in the folder of a run."""


def launcher(
    name: str, command: Sequence[str], texts: Sequence[str], out: Path
) -> "Callable[[Sequence[str]], Iterator[str]]":
    """Return what runs ``command --only CELL`` for each cell, and yields the cells as they end.

    Raises:
        ConfigError: there is no such launcher, it is not installed, or a resource is impossible.
    """
    from response_tuning.cli.launchers.job import Job
    from response_tuning.cli.launchers.resources import read_resources

    start = _launch(name)
    resources = read_resources(name, texts)
    line = [sys.executable, "-m"]
    if several := resources.of_torchrun:
        line += ["torch.distributed.run", *several, "-m"]

    def launch(cells: Sequence[str]) -> Iterator[str]:
        jobs = [
            Job(cell, (*line, "response_tuning", *command, "--only", cell), log_of(out, cell))
            for cell in cells
        ]
        return start(jobs, resources)

    return launch


def log_of(out: Path, cell: str) -> Path:
    """Return where the line of ``cell`` prints to."""
    return out.absolute() / JOBS / f"{cell}.log"


def _launch(name: str) -> "Callable[[Sequence[Job], Resources], Iterator[str]]":
    from response_tuning.cli.launchers import local, ray, slurm

    kinds = {"local": local.launch, "slurm": slurm.launch, "ray": ray.launch}
    if name not in kinds:
        raise unknown("launcher", name, [*kinds])
    package = _PACKAGES.get(name, "sys")
    if find_spec(package) is None:
        raise ConfigError(
            f"--launcher {name} needs {package}: pip install 'response-tuning[{name}]'"
        )
    if name == "slurm" and shutil.which("sbatch") is None:
        raise ConfigError("--launcher slurm: no 'sbatch' here; run it where you submit jobs")
    return kinds[name]
