"""FSDP2: each process keeps a share of the weights, the gradients and the optimizer's state.

A loss curve cannot prove it: without sharding the losses are the same to the last printed digit. So
the parameters that are really shared out are counted before the first step, and a run that asked
for sharding and shards nothing is refused. docs/decisions/0036 has the choices.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import DistributedType, PartialState
from accelerate.utils import FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, Shard
from transformers import Trainer

from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ConfigError
from response_tuning.finetune.processes import local_world_size, world_size

_SETTINGS = {"fsdp_version": 2, "state_dict_type": "SHARDED_STATE_DICT"}
"""Each process writes its own part of a checkpoint; any number of processes can read it."""
_SHARDED_WEIGHTS = "pytorch_model_fsdp_0"
"""The folder of the weights in such a checkpoint."""


class Shards(NamedTuple):
    """What is really shared out; its text is the line that a run prints."""

    processes: int
    """Processes among which a parameter is divided."""
    copies: int
    """Groups of such processes, each with all of the model; more than 1 with ``node``."""
    sharded: int
    """Parameters of which a process holds only a share."""
    parameters: int

    def __str__(self) -> str:
        groups = f", in each of {self.copies} nodes" if self.copies > 1 else ""
        return (
            f"sharded over {self.processes} processes{groups}: {self.sharded:,} of "
            f"{self.parameters:,} parameters"
        )


def training_arguments(config: FinetuneConfig) -> dict[str, Any]:
    """Return what ``TrainingArguments`` need for ``config.shard``."""
    if config.shard is None:
        return {}
    arguments: dict[str, Any] = {
        "fsdp": True,
        "fsdp_config": {"version": 2, "state_dict_type": _SETTINGS["state_dict_type"]},
    }
    copies = world_size() // shards_of(config)
    if copies > 1:
        from accelerate.parallelism_config import ParallelismConfig

        arguments["parallelism_config"] = ParallelismConfig(
            dp_replicate_size=copies, dp_shard_size=shards_of(config)
        )
    return arguments


def shards_of(config: FinetuneConfig) -> int:
    """Return the number of processes among which weights, gradients and moments are divided."""
    if config.shard is not None:
        return local_world_size() if config.shard == "node" else world_size()
    return world_size() if launcher_asks() else 1


def check(config: FinetuneConfig) -> None:
    """Refuse to shard what cannot be shared out, before data are prepared.

    Raises:
        ConfigError: there is one process, or one on each node.
    """
    if config.shard is None:
        return
    if world_size() == 1:
        raise ConfigError(
            f"--shard {config.shard} divides the model among processes, and there is one; start "
            "several with 'torchrun --nproc-per-node 8 -m response_tuning finetune ...', or remove "
            "--shard"
        )
    if config.shard == "node" and (local_world_size() == 1 or world_size() % local_world_size()):
        raise ConfigError(
            f"--shard node divides the model among the processes of each node: {world_size()} "
            f"processes, {local_world_size()} of them on this node; start the same number, at "
            "least 2, on each node, or use --shard full"
        )


class ShardedTrainer(Trainer):
    """A Trainer whose FSDP2 runs on CPUs too, proves itself, and reads any checkpoint.

    ``TrainingArguments(fsdp=True)`` asks for it, and so does a launcher's ``--use_fsdp``.
    """

    shards: Shards | None = None
    """What is shared out, counted before the first step; None if nobody asked for sharding."""

    def create_accelerator_and_postprocess(self) -> None:
        """Create the accelerator; shard on CPUs as on GPUs, and reduce gradients in float32."""
        groups = self.args.parallelism_config
        on_cpus = self.args.use_cpu and _asks(self) and self.args.world_size > 1
        if on_cpus:
            self.args.parallelism_config = None  # accelerate 1.15 refuses it before FSDP is set
        super().create_accelerator_and_postprocess()
        state: Any = self.accelerator.state
        if on_cpus:
            # accelerate does this for every kind of device but CPUs, which then get DDP.
            state.fsdp_plugin = FullyShardedDataParallelPlugin(
                **(self.args.fsdp_plugin_args or _SETTINGS)
            )
            state.distributed_type = DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.is_fsdp_enabled = True
            if groups is not None:
                self.args.parallelism_config = state.parallelism_config = groups
                state.device_mesh = groups.get_device_mesh("cpu")
        if self.is_fsdp_enabled and self.accelerator.mixed_precision == "bf16":
            # accelerate's own policy would also sum gradients and return the loss in bfloat16, and
            # round what divides the loss: 566 tokens became 568.
            state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
            )

    def _prepare_for_training(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - Trainer's
        """Shard as Trainer does, and count.

        Raises:
            ConfigError: sharding was asked for, and no parameter is sharded.
        """
        prepared = super()._prepare_for_training(*args, **kwargs)  # type: ignore[no-untyped-call]
        if _asks(self):
            model: Any = self.model
            self.shards = count(model, self.args.world_size)
            if not self.shards.sharded:
                raise ConfigError(
                    f"{self.shards}, though sharding was asked for: every process would hold all "
                    "of the model; FSDP2 is needed (--shard full, or 'fsdp_version: 2')"
                )
        return prepared

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save one ordinary model, whatever was sharded; Trainer saves none of sharded states."""
        if not self.is_fsdp_enabled or _internal_call:  # inside a checkpoint
            super().save_model(output_dir, _internal_call)
            return
        self._save(output_dir, gathered(self.model))
        if self.args.push_to_hub:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:  # noqa: ANN401
        if self.is_fsdp_enabled and not _is_sharded(resume_from_checkpoint):
            name = Path(resume_from_checkpoint).name
            raise ConfigError(
                f"{name} was saved without sharding; run the same command without --shard, or "
                "--no-resume to start over"
            )
        with _reading(self, resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _reading(self, checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)


def count(model: nn.Module, processes: int) -> Shards:
    """Count the parameters of which this process holds only a share."""
    parameters = list(model.parameters())
    divided = [
        parameter
        for parameter in parameters
        if isinstance(parameter, DTensor)
        and any(isinstance(placement, Shard) for placement in parameter.placements)
    ]
    among = divided[0].device_mesh.size(-1) if divided else processes
    return Shards(among, processes // among, len(divided), len(parameters))


def gathered(model: Any) -> dict[str, Tensor]:  # noqa: ANN401 - PEFT's, or transformers'
    """Return all of what is to be saved, on the first process; each process must call this.

    Of a model with an adapter, that is the adapter. A weight that is tied to another one is left
    out: once gathered they are two tensors, and both would be written.
    """
    options = StateDictOptions(
        full_state_dict=True, cpu_offload=True, ignore_frozen_params=hasattr(model, "peft_config")
    )
    state: dict[str, Any] = get_model_state_dict(model, options=options)
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    return {name: weight for name, weight in state.items() if name not in tied}


def _asks(trainer: Trainer) -> bool:
    return bool(trainer.args.fsdp) or launcher_asks()


def launcher_asks() -> bool:
    """Whether this process was launched to shard, or shards already."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def _is_sharded(checkpoint: str) -> bool:
    return (Path(checkpoint) / _SHARDED_WEIGHTS).is_dir()


@contextmanager
def _reading(trainer: Trainer, checkpoint: str | None) -> Iterator[None]:
    """Inside the block, Trainer reads a sharded checkpoint into a model that is not sharded."""
    if trainer.is_fsdp_enabled or checkpoint is None or not _is_sharded(checkpoint):
        yield
        return
    state: Any = trainer.accelerator.state
    state.fsdp_plugin = FullyShardedDataParallelPlugin(**_SETTINGS)
    trainer.is_fsdp_enabled = True
    try:
        yield
    finally:
        trainer.is_fsdp_enabled = False
        state.fsdp_plugin = None
