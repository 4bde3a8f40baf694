"""What is printed before the first step of a run."""

from typing import TYPE_CHECKING

from response_tuning.configs import FinetuneConfig
from response_tuning.finetune.dataset import EncodedExamples
from response_tuning.finetune.rows import KEPT, TRUNCATED

if TYPE_CHECKING:
    from response_tuning.finetune.trainer import ResponseTrainer


def summary(
    config: FinetuneConfig, trainer: "ResponseTrainer", encoded: EncodedExamples
) -> list[str]:
    """Return what a user should know before the first step, a line each."""
    audit = encoded.audit
    dropped, held_out = sum(audit["dropped"].values()), len(encoded.held_out)
    lines = [
        f"{config.objective} of {config.base_model} ({config.method}) on {trainer.args.device}",
        f"{audit['examples']:,} examples: {audit[KEPT]:,} kept, {audit[TRUNCATED]:,} truncated, "
        f"{dropped:,} dropped; {audit['supervised_tokens']:,} of {audit['tokens']:,} tokens "
        f"carry loss{_hidden(audit['hidden_tokens'])}",
        f"{held_out:,} of these are held out; --eval-fraction 0 trains on all" if held_out else "",
        *(f"{count:,} dropped: {reason}" for reason, count in audit["dropped"].items()),
        *(f"{count:,} responses {remark}" for remark, count in audit["remarks"].items()),
    ]
    if config.tokens is not None:
        lines.append(f"tokens made ahead: {config.tokens}")
    if config.method == "qlora" and config.shard:
        lines.append("4-bit weights are stored as bfloat16 numbers, which FSDP2 can share out")
    # Padding costs time, so the reason for it is worth a line.
    if trainer.layout_reason:
        lines.append(
            "training on padded micro-batches with the model's own attention, because it does not "
            f"compute flattened ones exactly: {trainer.layout_reason}"
        )
    return lines


def _hidden(tokens: int) -> str:
    return f"; {tokens:,} more are hidden from attention" if tokens else ""
