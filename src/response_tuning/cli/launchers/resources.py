"""What a cell gets on a cluster: ``--resources partition=a100,gpus=8,time=4:00:00``."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field

from response_tuning.configs import Config
from response_tuning.errors import ConfigError
from response_tuning.registry import unknown
from response_tuning.validation import build

_TIME = re.compile(r"(?:(\d+)-)?(\d+):([0-5]\d):([0-5]\d)")
_SLURM = ("nodes", "partition", "account", "qos", "constraint", "time", "signal_s")


class Resources(Config):
    """Of one cell, and of each of its nodes; ``at_once`` counts cells."""

    flags: ClassVar[bool] = False
    nodes: int = Field(default=1, ge=1, description="``slurm``: nodes that tune a cell together.")
    gpus: int = Field(default=0, ge=0, description="GPUs of a node.")
    cpus: int | None = Field(default=None, ge=1, description="CPU cores of a node.")
    memory_gb: float | None = Field(default=None, gt=0, description="Memory of a node, in GB.")
    processes: int | None = Field(default=None, ge=1)
    """Processes of a node, started by torchrun; by default one for each GPU."""
    at_once: int | None = Field(default=None, ge=1)
    """Cells that run at a time; ``local``: 1, or as many as the GPUs allow."""
    partition: str | None = Field(default=None, description="``slurm``: partition.")
    account: str | None = Field(default=None, description="``slurm``: account.")
    qos: str | None = Field(default=None, description="``slurm``: quality of service.")
    constraint: str | None = Field(default=None, description="``slurm``: features of the nodes.")
    time: str | None = Field(default=None, description="``slurm``: limit of a cell, D-HH:MM:SS.")
    signal_s: int = Field(default=90, ge=1)
    """``slurm``: seconds before the limit at which a cell saves a checkpoint and is requeued."""

    @property
    def of_torchrun(self) -> list[str]:
        """The flags of torchrun; empty where a cell is one process, which needs no torchrun."""
        each = self.processes or max(self.gpus, 1)
        if self.nodes * each == 1:
            return []
        # Which node is the first, and which is this one, is known on the node: see ``queue``.
        where = ["--nnodes", str(self.nodes)] if self.nodes > 1 else ["--standalone"]
        return [*where, "--nproc-per-node", str(each)]

    @property
    def minutes(self) -> int | None:
        """``time`` in minutes, rounded up.

        Raises:
            ConfigError: it is not a time.
        """
        if self.time is None:
            return None
        if (match := _TIME.fullmatch(self.time)) is None:
            raise ConfigError(f"--resources time={self.time}: write it as 4:00:00 or 2-00:00:00")
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        return days * 1440 + hours * 60 + minutes + (seconds > 0)

    @property
    def of_submitit(self) -> dict[str, Any]:
        """The parameters of a submitit executor."""
        given = {
            "timeout_min": self.minutes,
            "nodes": self.nodes,
            "tasks_per_node": 1,
            "mem_gb": self.memory_gb,
            "cpus_per_task": self.cpus,
            "gpus_per_node": self.gpus or None,
            "slurm_array_parallelism": self.at_once,
            "slurm_partition": self.partition,
            "slurm_account": self.account,
            "slurm_qos": self.qos,
            "slurm_constraint": self.constraint,
            "slurm_signal_delay_s": self.signal_s,
        }
        return {name: value for name, value in given.items() if value is not None}


def read_resources(launcher: str, texts: Sequence[str]) -> Resources:
    """Read ``KEY=VALUE,KEY=VALUE`` texts.

    Raises:
        ConfigError: a key is unknown, has no effect with this launcher, or its value is impossible.
    """
    values: dict[str, str] = {}
    for part in (part for text in texts for part in text.split(",")):
        key, sign, value = part.strip().partition("=")
        key = key.replace("-", "_")
        if not sign:
            raise ConfigError(f"--resources {part.strip()}: write KEY=VALUE; example: gpus=8")
        if key not in Resources.model_fields:
            raise unknown("resource", key, [*Resources.model_fields])
        if key in _SLURM and launcher != "slurm":
            raise ConfigError(f"--resources {key}: has no effect with --launcher {launcher}")
        values[key] = value
    resources = build(Resources, values, "--resources")
    if launcher == "slurm" and resources.minutes is None:
        raise ConfigError("--launcher slurm needs a limit: --resources time=4:00:00")
    return resources
