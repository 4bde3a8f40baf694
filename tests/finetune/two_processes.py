"""A share of each step in one of two processes; see ``test_trainer.py``."""

import json
from pathlib import Path

import torch

from response_tuning.finetune.trainer import ResponseTrainer
from tests.finetune import test_losses, test_trainer


def train_and_evaluate(base: Path, out: Path) -> None:
    distributed = {"ddp_find_unused_parameters": False, "ddp_backend": "gloo"}
    trainer = ResponseTrainer(
        test_trainer.load(base),
        # 7 examples in the last step of an epoch, over 2 processes, in micro-batches of 100 tokens.
        test_trainer.arguments(out, **distributed),
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
    for case in test_losses.CASES:
        history, weights = test_losses.tuned(base, out, case, arguments=distributed)
        if trainer.is_world_process_zero():
            torch.save((history, weights), out / f"{case}.pt")
