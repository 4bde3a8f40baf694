"""What a run would cost: steps, tokens, memory and time, estimated without reading weights."""

import math
import tempfile
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ModelError
from response_tuning.finetune import base, memory
from response_tuning.finetune.dataset import EncodedExamples, encode
from response_tuning.finetune.example_file import Examples
from response_tuning.finetune.memory import Size, flops_per_token, load_of, peak_memory
from response_tuning.templates import Chat

if TYPE_CHECKING:
    from rich.console import Console


EFFICIENCY = 0.75
"""Share of the matrix-product rate that training is assumed to reach where no part of the model is
timed: on a GPU."""


class Plan(NamedTuple):
    """What a run would do, and about what it would cost."""

    size: Size
    audit: dict[str, Any]
    """Counts of the encoded examples."""
    steps: int
    tokens: int
    """Tokens of all steps, with or without loss."""
    memory_bytes: float
    seconds: float
    fit: memory.MemoryFit
    pace: tuple[float, float]
    """Seconds of a token and of a step."""


def estimate(
    config: FinetuneConfig, examples: Examples, pace: tuple[float, float] | None = None
) -> Plan:
    """Return what a run would do and about what it would cost on this machine.

    ``pace`` is that of a plan with the same base, method and objective; nothing is timed then.
    """
    chat = Chat(base.load_tokenizer(config))
    with tempfile.TemporaryDirectory() as folder:
        encoded = encode(config, chat, examples, Path(folder) / "tokens")
    # First, as in the run: what follows takes some of the device's memory.
    fit = memory.fit(config, load_of(config, encoded), _free_memory(config))
    size = memory.measure(config)
    steps, tokens = _steps_and_tokens(config, encoded)
    needed = _memory(config, size, encoded, fit)  # before a part of the model is timed
    token, step = pace = pace or _seconds(config, size, encoded, fit)
    seconds = tokens * token + steps * step
    return Plan(size, encoded.audit, steps, tokens, needed, seconds, fit, pace)


def print_plan(config: FinetuneConfig, examples: Examples, console: "Console") -> None:
    """Print what the run would do and about what it would cost."""
    from rich.text import Text

    size, audit, steps, tokens, needed, seconds, fit, _ = estimate(config, examples)
    for line in (
        f"{config.objective} of {config.base_model} ({config.method}): "
        f"{size.total:,} parameters, {size.trainable:,} trained",
        f"{audit['examples']:,} examples: {audit['kept']:,} kept, {audit['truncated']:,} "
        f"truncated, {sum(audit['dropped'].values()):,} dropped, {audit['held_out']:,} held out",
        f"{steps:,} steps of {config.examples_per_step} examples; {tokens:,} tokens, of which "
        f"{audit['supervised_tokens'] / audit['tokens']:.1%} carry loss",
        f"about {needed / 2**30:.2f} GiB of memory and "
        f"{_duration(seconds)} on this machine's {'GPU' if _on_gpu(config) else 'CPU'}",
        *([fit.reason] if fit.reason else []),
    ):
        console.print(Text(line), soft_wrap=True)


def _steps_and_tokens(config: FinetuneConfig, encoded: EncodedExamples) -> tuple[int, int]:
    from response_tuning.finetune.loader import fixed_partners
    from response_tuning.finetune.steps import StepSampler

    lengths = encoded.train.lengths
    sampler = StepSampler(
        lengths,
        config.examples_per_step,
        seed=config.seed,
        partners=fixed_partners(encoded.train),
    )
    steps = config.max_steps or math.ceil(config.epochs * len(sampler))
    epochs, rest = divmod(steps, len(sampler))
    # The last epoch is cut, and which documents its steps hold depends on its permutation.
    sampler.set_epoch(epochs)
    begun = (place for step in islice(sampler.steps(), rest) for place in step)
    return steps, epochs * sum(lengths) + sum(lengths[place.document] for place in begun)


def _seconds(
    config: FinetuneConfig, size: Size, encoded: EncodedExamples, fit: memory.MemoryFit
) -> tuple[float, float]:
    """Return seconds of a token and of a step: of a part of the model, or by the device's rate."""
    if not _on_gpu(config):
        from response_tuning.finetune import timing

        # A model that is trained on padded steps, or whose layers cannot be left out, has no time.
        with suppress(ModelError):
            return timing.measured(config, encoded.train, fit.tokens, size)
    return flops_per_token(config, size) / (_rate(config) * EFFICIENCY), 0.0


def _memory(
    config: FinetuneConfig, size: Size, encoded: EncodedExamples, fit: memory.MemoryFit
) -> float:
    """Return bytes: weights, gradients, the optimizer's moments, activations, logits.

    On a CPU, what this process has taken so far comes on top: libraries and the tokenizer, 0.7 GB
    of which are for 262,144 tokens.
    """
    load = load_of(config, encoded)
    at_once = min(max(fit.tokens, load.longest), load.step, sum(encoded.train.lengths))
    each = memory.token_bytes(config, size, load, checkpointing=fit.checkpointing)
    fixed = memory.state_bytes(config, size) + memory.head_bytes(config, size, load)
    return fixed + at_once * each + (0 if _on_gpu(config) else peak_memory())


def _free_memory(config: FinetuneConfig) -> int | None:
    import torch

    return int(torch.cuda.mem_get_info()[0]) if _on_gpu(config) else None


def _rate(config: FinetuneConfig) -> float:
    """Measure this machine's matrix products, in FLOP/s."""
    import torch

    device = "cuda" if _on_gpu(config) else "cpu"
    dtype = torch.bfloat16 if base.computes_in_bfloat16(config) else torch.float32
    side = 8192 if device == "cuda" else 768
    a = torch.ones(side, side, device=device, dtype=dtype)
    products, started = 0, 0.0
    for attempt in range(8):
        if attempt == 2:  # the first products warm up
            started = time.perf_counter()
        products += attempt >= 2
        float((a @ a)[0, 0])  # reading a number waits for the device
    seconds = time.perf_counter() - started
    return float(products * 2 * side**3 / seconds)


def _on_gpu(config: FinetuneConfig) -> bool:
    import torch

    return config.device != "cpu" and torch.cuda.is_available()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
