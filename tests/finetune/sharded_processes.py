"""Sharded runs in processes of their own; see ``test_sharding.py``."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ConfigError
from response_tuning.finetune.run import finetune
from response_tuning.finetune.trainer import ResponseTrainer
from response_tuning.terminal import quiet_libraries
from tests.finetune import runs


def run(config: FinetuneConfig, data: Path, out: Path, kill: tuple[str, int] | None) -> None:
    """Fine-tune; leave what each process holds in ``OUT.<rank>``, and what the first prints."""
    quiet_libraries()
    if kill is not None:
        where, place = kill
        runs.KILLS[where](place)
    _record_what_is_held(out)
    first = os.environ.get("RANK", "0") == "0"
    with (out.with_suffix(".printed") if first else Path(os.devnull)).open("a") as printed:
        finetune(config, data, out, Console(file=printed, width=200))


def refused(config: FinetuneConfig, data: Path, out: Path) -> None:
    """Fine-tune from a checkpoint that was saved without sharding."""
    quiet_libraries()
    with pytest.raises(ConfigError, match="checkpoint-4 was saved without sharding; run the same"):
        finetune(config, data, out, Console(quiet=True))


def _record_what_is_held(out: Path) -> None:
    prepare = ResponseTrainer._prepare_for_training

    def prepare_and_record(self: Any, *args: Any, **kwargs: Any) -> Any:
        prepared = prepare(self, *args, **kwargs)
        held = {
            name: [str(p.placements), list(p.shape), list(p.to_local().shape)]
            for name, p in self.model.named_parameters()
            if isinstance(p, DTensor)
        }
        groups = sum(isinstance(module, FSDPModule) for module in self.model.modules())
        content = {
            "held": held,
            "parameters": len(list(self.model.parameters())),
            "groups": groups,
            "layers": self.model.config.num_hidden_layers,
        }
        rank = os.environ.get("RANK", "0")
        out.with_suffix(f".{rank}.json").write_text(json.dumps(content))
        return prepared

    ResponseTrainer._prepare_for_training = prepare_and_record  # type: ignore[method-assign]
