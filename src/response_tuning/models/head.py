"""The output head of a model, taken out of its forward pass.

Logits are (S, V) for S positions: with a vocabulary of 262,144, 1 GiB for each 1,024 positions in
float32. Whoever needs the head's result a part at a time takes the hidden states instead, (S, D),
and applies the head himself. That is exact only if the model hands the result of its head to its
loss unchanged: Gemma 2 caps it, Cohere and Granite scale it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# What the code of a model raises where it does not expect hidden states.
_HEAD_ERRORS = (ValueError, TypeError, RuntimeError, AttributeError, LookupError)


class Deferred:
    """The input of a head that has not been applied yet."""

    def __init__(self, head: nn.Linear) -> None:
        self._head = head
        self._version = 0
        self.hidden: Tensor | None = None
        """(..., D)."""

    def keep(self, hidden: Tensor) -> Tensor:
        """Return ``hidden`` in place of the head's result, and keep it."""
        self.hidden, self._version = hidden, hidden._version
        return hidden

    def is_unchanged(self, logits: object) -> bool:
        """Whether ``logits``, which the model made of the head's result, are that result."""
        kept = self.hidden
        return kept is not None and logits is kept and kept._version == self._version

    @property
    def weight(self) -> Tensor:
        """(V, D). Read inside the model's forward pass, where FSDP2 has gathered it."""
        return self._head.weight

    @property
    def bias(self) -> Tensor | None:
        """(V,)."""
        return self._head.bias


class _Returned(tuple[Tensor]):
    """What a model's layers return, here hidden states alone."""

    @property
    def last_hidden_state(self) -> Tensor:
        """(1, T, D)."""
        return self[0]

    def __getattr__(self, name: str) -> None:
        """Caches, attentions, the logits of routers: none."""


def copy_strided_inputs(model: Any) -> None:  # noqa: ANN401 - a PreTrainedModel, or a PeftModel
    """Have the head compute on a contiguous input of (B, T, D).

    Generation takes the last position of each row, a view with gaps. For such a view of bfloat16,
    torch 2.13 repeats the weights on a CPU for each row, (B, V, D): 10 GB and two minutes for 30
    rows of a model with a vocabulary of 262,144, against 0.1 s.
    """
    head = model.get_output_embeddings()
    if isinstance(head, nn.Module):
        head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(), *inputs[1:]))


@contextmanager
def deferred(model: Any) -> Iterator[Deferred]:  # noqa: ANN401 - a PreTrainedModel
    """Inside the block, the model's logits are the hidden states that its head would be given.

    Only for a model of which ``is_deferrable`` is true.
    """
    head = model.get_output_embeddings()
    taken = Deferred(head)
    head.forward = taken.keep
    try:
        yield taken
    finally:
        del head.forward


def has_plain_head(model: Any) -> bool:  # noqa: ANN401 - a PreTrainedModel
    """Whether the head is a linear layer and nothing else acts on its result."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    # By identity: LoRA, quantization, FSDP2 and others make it a layer of another class.
    if type(head) is not nn.Linear or "forward" in vars(head):
        return False
    return not (head._forward_hooks or head._forward_pre_hooks)


@torch.no_grad()
def is_deferrable(model: Any) -> bool:  # noqa: ANN401 - a PreTrainedModel
    """Whether the head of ``model`` can be applied later, and to a part of its input.

    It must be a plain linear layer without hooks or adapters, whose result reaches the loss as it
    is. The latter is tried: the model's forward pass runs with zeros for what its layers return.
    No weight is read, so it works on the meta device too.
    """
    backbone, head = model.base_model, model.get_output_embeddings()
    if not has_plain_head(model) or isinstance(head.weight, _sharded()) or backbone is model:
        return False
    found: list[bool] = []

    def loss(logits: Tensor, *_: object, **__: object) -> Tensor:
        found.append(taken.is_unchanged(logits))
        return logits.sum()

    stock, forward = model.loss_function, vars(backbone).get("forward")
    ids, hidden = _probe(head.weight)
    model.loss_function = loss
    backbone.forward = lambda *_, **__: _Returned((hidden,))
    try:
        with deferred(model) as taken:
            model(input_ids=ids, labels=ids, use_cache=False)
    except _HEAD_ERRORS:
        return False
    finally:
        model.loss_function = stock
        del backbone.forward
        if forward is not None:  # a wrapper's
            backbone.forward = forward
    return found == [True]


def _probe(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return two ids, and hidden states of the type that a step has: a cast must show."""
    kind = weight.device.type
    autocast = kind != "meta" and torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if autocast else weight.dtype
    ids = torch.zeros((1, 2), dtype=torch.long, device=weight.device)
    return ids, torch.zeros((1, 2, weight.shape[1]), dtype=dtype, device=weight.device)


def _sharded() -> type:
    """Return the class of weights that are spread over processes."""
    from torch.distributed.tensor import DTensor

    return DTensor
