"""What fits into a device's memory: an estimate before the run, and the settings chosen by it.

A step is the same whatever goes through the model at once and whatever is computed twice, so free
memory may decide both. If the estimate is wrong, ``ResponseTrainer`` corrects it while it trains.
"""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ModelError
from response_tuning.finetune import base, memory
from response_tuning.finetune.dataset import EncodedExamples
from response_tuning.finetune.objectives import build_objective, loss_of
from response_tuning.finetune.processes import world_size
from response_tuning.models import loading

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import TrainingArguments


CPU_TOKENS = (512, 4096)
"""Tokens at once on a CPU, at least and at most. From 512 on, more make no step faster."""
CPU_ROOM = 2**30
"""Bytes for the tokens that are at once on a CPU, as far as their least number allows."""
ENOUGH_TOKENS = 4096
"""Tokens that keep a GPU busy: fewer at once cost more than computing activations twice."""
MOST_TOKENS = 32768
"""More tokens at once make no step faster."""
SHARE = 0.85
"""Share of the free memory to use; the rest is for fragments and whatever is not counted."""
RESERVE = 2**30
"""Bytes for the workspaces of libraries."""


class Size(NamedTuple):
    """Numbers of the model, counted on its architecture alone."""

    total: int
    """Parameters."""
    trainable: int
    layers: int
    hidden: int
    vocabulary: int
    attention: int
    """Width of all queries together."""
    keys: int
    """Width of all keys together."""
    inner: int
    """Width inside the feed-forward part that a token goes through."""
    norms: int
    """Normalisations in a layer."""
    scores: int
    """Attention heads whose scores are kept, because no fused kernel computes them; else 0."""
    capped: bool
    """Whether the logits are capped, as Gemma 2's."""
    deferred: bool
    """Whether the head is applied to a chunk of positions at a time; see ``models/head.py``."""


class Load(NamedTuple):
    """What the documents of a run need."""

    longest: int
    """Tokens of the longest document, which goes through the model whole."""
    step: int
    """Tokens that a step has at most, on one process."""
    supervised: float
    """Share of the tokens that carry loss."""


class MemoryFit(NamedTuple):
    """How much goes through the model at once."""

    tokens: int
    checkpointing: bool
    reason: str = ""
    """What was chosen and why; empty if the settings left no choice."""


def measure(config: FinetuneConfig) -> Size:
    """Count parameters on the meta device, where a model has shapes and no weights."""
    import torch
    from transformers import AutoModelForCausalLM

    from response_tuning.finetune.cross_entropy import is_usual
    from response_tuning.finetune.sharding import shards_of
    from response_tuning.models.head import is_deferrable

    architecture = base.architecture(config)
    with torch.device("meta"), loading.explained(config.base_model):
        model: Any = AutoModelForCausalLM.from_config(architecture, dtype=torch.float32)  # type: ignore[no-untyped-call]
        total = _count(model)
        norms = sum("Norm" in type(module).__name__ for module in model.modules())
        # As in ``ResponseTrainer``: an objective's own loss sees all logits.
        loss = loss_of(build_objective(config.objective, config.objective_settings))
        deferred = loss is None and is_usual(model) and is_deferrable(model)
        deferred = deferred and shards_of(config) == 1  # FSDP2 makes the head another class
        if config.method != "full":
            model = base.with_adapter(model, config.model_copy(update={"method": "lora"}))
    # Models of text and images keep the numbers of their language model in a part of their config.
    text: Any = architecture.get_text_config()
    heads = getattr(text, "num_attention_heads", None) or 1  # RWKV and Mamba attend to nothing
    head = getattr(text, "head_dim", None) or text.hidden_size // heads
    experts = getattr(text, "num_experts_per_tok", None) or 1
    return Size(
        total=total,
        trainable=_count(model, only_trained=True),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        vocabulary=text.vocab_size,
        attention=heads * head,
        keys=(getattr(text, "num_key_value_heads", None) or heads) * head,
        inner=experts * (getattr(text, "intermediate_size", None) or 4 * text.hidden_size),
        norms=norms // text.num_hidden_layers,
        scores=heads if getattr(text, "attn_logit_softcapping", None) else 0,
        capped=bool(getattr(text, "final_logit_softcapping", None)),
        deferred=deferred,
    )


def flops_per_token(config: FinetuneConfig, size: Size) -> int:
    """Return 6N for full tuning, 4N where the base is frozen: no weight gradients there."""
    return (6 if config.method == "full" else 4) * size.total


def state_bytes(config: FinetuneConfig, size: Size) -> float:
    """Return bytes of weights, their copies in bfloat16, gradients and the optimizer's moments."""
    number = _number(config)
    # Autocast keeps a bfloat16 copy of each float32 weight until the backward pass.
    copies = 2 if config.method == "full" and number == 2 else 0
    weight = {"full": 4, "lora": number, "qlora": 0.55}[config.method] + copies
    moments = next((b for name, b in _MOMENTS.items() if name in config.optimizer), 8.0)
    adapter = 0 if config.method == "full" else 4
    return size.total * weight + size.trainable * (adapter + 4 + moments)


# Bytes a trained parameter, by what the optimizer's name says; AdamW keeps two float32 numbers.
_MOMENTS = {"8bit": 2.0, "adafactor": 0.1, "sgd": 4.0, "lion": 4.0}


def token_bytes(config: FinetuneConfig, size: Size, load: Load, *, checkpointing: bool) -> float:
    """Return bytes that a token holds when the backward pass begins, or in an evaluation if more.

    The terms come from counting autograd's saved tensors; tests/finetune/test_memory.py counts
    them again.
    """
    number = _number(config)
    # Queries, attended values, keys, values; gate, its activation, the other factor, their product.
    layer = number * (2 * size.attention + 2 * size.keys + 4 * size.inner)
    # Norms work in float32, whatever the rest does; so does the residual stream of float32 weights.
    norm = size.hidden * (14 if config.method == "full" else 10)
    layer += size.norms * norm
    if config.method != "full" and config.lora_dropout > 0:
        # Every linear layer has its own mask of a byte, and its own copy of its input.
        layer += 12 * size.hidden + size.inner
    layer += size.scores * load.longest * (6 + 2 * number)
    residual = size.hidden * (4 if config.method == "full" else number)
    layers = size.layers * residual + layer if checkpointing else size.layers * layer
    layers += norm + size.hidden * number  # the last norm, and what of it goes into the head
    if size.deferred:  # the hidden states' gradient; ``head_bytes`` counts the logits
        return layers + load.supervised * size.hidden * number
    logits = load.supervised * size.vocabulary
    # The loss's gradient takes the place of the logits, unless they are capped: what is capped is
    # kept too, and the backward pass makes two more.
    training = layers + logits * number * (4 if size.capped else 1)
    # An evaluation keeps nothing, but has the logits in float32, and their logarithmic softmax.
    return max(training, logits * (number + 8))


def head_bytes(config: FinetuneConfig, size: Size, load: Load) -> float:
    """Return bytes that the head takes however many tokens go through the model at once.

    These are the logits of a chunk, and, if the weights are trained, the gradients of the head and
    the embedding, which are added to those of earlier micro-batches.
    """
    from response_tuning.finetune.cross_entropy import CHUNK

    number = _number(config)
    most = CHUNK["cuda" if number == 2 else "cpu"]
    logits = min(most, load.step * load.supervised * size.vocabulary) if size.deferred else 0
    trained = 2 * size.vocabulary * size.hidden if config.method == "full" else 0
    return number * logits + 4 * trained


def fit(config: FinetuneConfig, load: Load, free: int | None) -> MemoryFit:
    """Choose what ``auto`` leaves open; ``free`` is the device's memory in bytes, None on a CPU."""
    from response_tuning.finetune.sharding import shards_of

    tokens, checkpointing = config.tokens_per_micro_batch, config.gradient_checkpointing
    if tokens != "auto" and checkpointing != "auto":
        return MemoryFit(tokens, checkpointing)
    if free is None and tokens != "auto":
        return MemoryFit(tokens, checkpointing is True)
    size = measure(config)
    if free is None:
        each = token_bytes(config, size, load, checkpointing=checkpointing is True)
        least, most = CPU_TOKENS
        return MemoryFit(min(max(int(CPU_ROOM / each), least), most), checkpointing is True)
    # FSDP divides weights, gradients and moments among processes, but not activations.
    fixed = state_bytes(config, size) / shards_of(config) + head_bytes(config, size, load)
    room = SHARE * (free - RESERVE - fixed)
    # Kept activations first: computing them twice makes a step about a third slower, which only
    # pays if it makes room for enough tokens at once.
    best = MemoryFit(load.longest, checkpointing=True)
    for computed_twice in (False, True) if checkpointing == "auto" else (checkpointing,):
        holds = int(room / token_bytes(config, size, load, checkpointing=computed_twice))
        most = max(load.longest, min(MOST_TOKENS, load.step))
        wanted = max(load.longest, min(ENOUGH_TOKENS, most) if tokens == "auto" else tokens)
        chosen = max(min(holds, most), load.longest) if tokens == "auto" else tokens
        best = MemoryFit(chosen, computed_twice)
        if holds >= wanted:
            break
    how = "computed twice (gradient checkpointing)" if best.checkpointing else "kept"
    return best._replace(
        reason=f"{best.tokens:,} tokens at once, activations {how}: by estimate "
        f"{max(room, 0) / 2**30:.1f} of {free / 2**30:.1f} GiB are for them"
    )


def free_memory(arguments: "TrainingArguments") -> int | None:
    """Return free bytes of the device, the minimum over all processes; None on a CPU."""
    import torch

    if arguments.device.type != "cuda":
        return None
    free = torch.tensor(torch.cuda.mem_get_info(arguments.device)[0], device=arguments.device)
    if arguments.world_size > 1:
        torch.distributed.all_reduce(free, op=torch.distributed.ReduceOp.MIN)
    return int(free)


def peak_memory() -> int:
    """Return bytes of the largest resident set of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux, bytes on macOS
    return peak * (1 if sys.platform == "darwin" else 2**10)


def generator_states(device: "torch.device") -> "list[torch.Tensor]":
    """Return the states of the generators that dropout draws from."""
    import torch

    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def set_generator_states(states: "list[torch.Tensor]", device: "torch.device") -> None:
    """Make dropout draw the same numbers again as after ``generator_states``."""
    import torch

    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)


@contextmanager
def explained() -> Iterator[None]:
    """Turn running out of memory into one line, where a smaller micro-batch would not help.

    Raises:
        ModelError: memory ran out.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError(
            "out of memory beside the micro-batches: weights, gradients and the optimizer's state "
            f"do not fit into the device; use {more_devices()}--method lora or qlora, or an "
            "optimizer that keeps less, such as adamw_8bit or adafactor"
        ) from error


def more_devices() -> str:
    """Return how the model takes less memory of each GPU, as the first of several remedies."""
    from response_tuning.finetune.sharding import launcher_asks

    # With --shard too: accelerate sets the variable of its launcher.
    return "more processes, " if launcher_asks() else "torchrun with --shard full, "


def _number(config: FinetuneConfig) -> int:
    """Return bytes of one number of a matrix product."""
    return 2 if base.computes_in_bfloat16(config) else 4


def _count(model: "nn.Module", *, only_trained: bool = False) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not only_trained)


def load_of(config: FinetuneConfig, encoded: EncodedExamples) -> memory.Load:
    """Return what the examples need of the device's memory."""
    longest = max(encoded.train.lengths)
    mine = -(-config.examples_per_step // world_size())
    supervised = encoded.audit["supervised_tokens"] / encoded.audit["tokens"]
    return memory.Load(longest, mine * longest, supervised)
