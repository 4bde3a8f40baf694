"""How long training takes on this machine's CPU, by training a part of the model for a moment.

One layer takes as long as the next. So a model of a few layers is built, with an embedding and a
head of their own size, and some of the run's documents go through it. Its weights are never read:
no product takes longer for other numbers.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from transformers import AutoModelForCausalLM

from response_tuning.configs import FinetuneConfig
from response_tuning.finetune import base, malloc
from response_tuning.finetune.cross_entropy import cross_entropy, in_place
from response_tuning.finetune.memory import Size, flops_per_token
from response_tuning.finetune.selftest import arguments, attending
from response_tuning.finetune.steps import FLATTENED, Document
from response_tuning.models import loading

LAYERS = 4
"""Layers that are built at most."""
FLOPS = 3e11
"""Work of the documents that are timed: four seconds of a core."""
UPDATED = 2**22
"""Numbers that are updated to time the optimizer."""


class Rows(Protocol):
    """Documents in memory or on the disk."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Document: ...


class Seconds(NamedTuple):
    """What training costs."""

    token: float
    """Of a token: forward and backward pass."""
    step: float
    """Of the optimizer's update."""


def measured(config: FinetuneConfig, documents: Rows, tokens: int, size: Size) -> Seconds:
    """Return what training on documents like these costs, with at most ``tokens`` at once.

    With one thread, seconds are processor time, which other work on the machine hardly changes;
    otherwise they are wall-clock time.

    Raises:
        ModelError: a model of fewer layers cannot be built or trained.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    chosen = _sample(documents, min(int(FLOPS / flops_per_token(config, size)), tokens))
    read = sum(len(document.input_ids) for document in chosen)
    with loading.explained(config.base_model, "cannot be timed"):
        model, depth, built = _built(config)
        with torch.autocast("cpu", torch.bfloat16, enabled=base.computes_in_bfloat16(config)):
            head, whole = _head_and_whole(model, chosen, clock)
    del model
    step = _seconds(clock, _update()) * size.trainable / UPDATED
    return Seconds((head + max(whole - head, 0) * depth / built) / read, step)


def _head_and_whole(
    model: Any,  # noqa: ANN401
    documents: Sequence[Document],
    clock: Callable[[], float],
) -> tuple[float, float]:
    """Return seconds of the head with the loss alone, and of all of ``model``."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model

    def pass_through(documents: Sequence[Document]) -> None:
        batch = arguments(FLATTENED.build(documents))
        inner(**batch, num_items_in_batch=1).loss.backward()

    model.train()
    with malloc.kept(torch.device("cpu")), attending(inner, FLATTENED), in_place(inner):
        pass_through(documents[:1])  # warms up
        whole = _seconds(clock, lambda: pass_through(documents))
        labels = arguments(FLATTENED.build(documents))["labels"]
        return _seconds(clock, lambda: _head(inner, labels)), whole


def _sample(documents: Rows, tokens: int) -> list[Document]:
    """Return documents of at most so many tokens together, or the first one."""
    chosen = [documents[0]]
    for index in range(1, len(documents)):
        tokens -= len(chosen[-1].input_ids)
        if len(documents[index].input_ids) > tokens:
            break
        chosen.append(documents[index])
    return chosen


def _built(config: FinetuneConfig) -> tuple[Any, int, int]:
    """Return a model of at most ``LAYERS`` layers, the layers that it should have, and has."""
    shape = base.architecture(config)
    text: Any = shape.get_text_config()
    depth: int = text.num_hidden_layers
    text.num_hidden_layers = built = min(depth, LAYERS)
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:built]
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            shape, dtype=base.weight_type(config)
        )
    model.to_empty(device="cpu")
    model.tie_weights()
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(0.01 if tensor.is_floating_point() else 0)  # memory is not cleared
    if config.method != "full":
        model = base.with_adapter(model, config.model_copy(update={"method": "lora"}))
    return model, depth, built


def _head(model: Any, labels: Any) -> None:  # noqa: ANN401
    """Run the head and the loss alone, forward and backward, over (S,) labels."""
    head = model.get_output_embeddings()
    hidden = torch.zeros(len(labels), head.weight.shape[1], requires_grad=True)
    logits = head(hidden)
    loss = cross_entropy(logits, labels, logits.shape[-1], 1, shift_labels=labels)
    loss.backward()  # type: ignore[no-untyped-call]


def _update() -> Callable[[], None]:
    """Return an update of AdamW, the default optimizer."""
    weights = torch.zeros(UPDATED, requires_grad=True)
    weights.grad = torch.zeros(UPDATED)
    optimizer = torch.optim.AdamW([weights], fused=True)
    optimizer.step()  # makes its moments

    def update() -> None:
        torch.nn.utils.clip_grad_norm_([weights], 1.0)
        optimizer.step()

    return update


def _seconds(clock: Callable[[], float], act: Callable[[], object]) -> float:
    began = clock()
    act()
    return clock() - began
