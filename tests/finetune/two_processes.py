"""A share of each step in one of two processes; see ``test_trainer.py``."""

import json
from pathlib import Path

import torch

from response_tuning.finetune.trainer import ResponseTrainer
from tests.finetune import test_trainer


def train_and_evaluate(base: Path, out: Path) -> None:
    trainer = ResponseTrainer(
        test_trainer.load(base),
        # 7 examples in the last step of an epoch, over 2 processes, in micro-batches of 100 tokens.
        test_trainer.arguments(out, ddp_find_unused_parameters=False, ddp_backend="gloo"),
        train_dataset=test_trainer.drawn(),
        examples_per_step=test_trainer.EXAMPLES,
        tokens_per_micro_batch=100,
    )
    trainer.train()
    held_out = trainer.evaluate(test_trainer.drawn(9))["eval_loss"]
    if trainer.is_world_process_zero():
        found = {"losses": test_trainer.losses(trainer), "held_out": held_out}
        (out / "losses.json").write_text(json.dumps(found))
        model = trainer.accelerator.unwrap_model(trainer.model)
        assert isinstance(model, torch.nn.Module)
        torch.save({n: p.data for n, p in model.named_parameters()}, out / "weights.pt")
    torch.distributed.destroy_process_group()
