"""Cross-entropy of a causal model that writes its gradient over the logits.

Logits are the largest tensor of a small model: (S, V) for S supervised positions. Stock
cross-entropy keeps three more of that size, in float32: a copy, its logarithmic softmax, and the
gradient. This one goes through the logits a block of rows at a time and leaves the gradient in
their place.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers.loss.loss_utils import ForCausalLMLoss

if TYPE_CHECKING:
    from transformers import PreTrainedModel


BLOCK = {"cpu": 2**20, "cuda": 2**25}
"""Logits at once: few enough for the cache of a CPU, many enough to keep a GPU busy."""


LossFunction = Callable[..., Tensor]
"""What a model of transformers calls with its logits."""


def is_usual(model: "PreTrainedModel") -> bool:
    """Whether the loss of ``model`` is the cross-entropy of the next token, and nothing else."""
    stock: Any = model.loss_function
    return stock is ForCausalLMLoss


@contextmanager
def in_place(model: "PreTrainedModel", loss: LossFunction | None = None) -> Iterator[None]:
    """Let ``model`` compute its loss with ``loss``, by default ``cross_entropy``.

    A model with a loss of its own keeps it.
    """
    stock: Any = model.loss_function
    if not is_usual(model):
        yield
        return
    model.loss_function = loss or cross_entropy
    try:
        yield
    finally:
        model.loss_function = stock


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    vocab_size: int,
    num_items_in_batch: Any = None,  # noqa: ANN401 - a number or a tensor of one, as transformers'
    *,
    shift_labels: Tensor | None = None,
    weights: Tensor | None = None,
    **other: Any,  # noqa: ANN401 - whatever else the model's forward was given
) -> Tensor:
    """Return what transformers' loss returns; afterwards the logits are their gradient.

    ``logits`` are (S, V) and ``shift_labels`` (S,), in any number of dimensions, for S supervised
    positions. ``weights`` are (S,): tokens then count by weight, and ``num_items_in_batch`` is the
    sum of the step's weights.
    """
    # Evaluation of a weighted objective: no gradient, so nothing to write in place.
    if weights is not None and shift_labels is not None and not logits.requires_grad:
        scores = logits.view(-1, vocab_size).float()
        return _summed(scores, shift_labels.view(-1), weights) / (num_items_in_batch or 1)
    # A call that is not the trainer's, or without a gradient: as transformers does it.
    if shift_labels is None or num_items_in_batch is None or not logits.requires_grad:
        return ForCausalLMLoss(
            logits, labels, vocab_size, num_items_in_batch, shift_labels=shift_labels, **other
        )
    apply: Callable[..., Tensor] = _InPlace.apply
    return apply(logits.view(-1, vocab_size), shift_labels.view(-1), num_items_in_batch, weights)


def _summed(scores: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return F.cross_entropy(scores, targets, reduction="sum")
    return (F.cross_entropy(scores, targets, reduction="none") * weights).sum()


class _InPlace(torch.autograd.Function):
    """Cross-entropy, summed and divided; autograd raises if another operation needs the logits."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        logits: Tensor,
        labels: Tensor,
        divisor: Tensor | int,
        weights: Tensor | None,
    ) -> Tensor:
        # A view of the logits' memory, which each block overwrites once its loss is known.
        gradient, total = logits.detach(), torch.zeros((), device=logits.device)
        most = BLOCK["cpu" if logits.device.type == "cpu" else "cuda"]
        rows = max(1, most // logits.shape[1])
        for start in range(0, len(labels), rows):
            block, targets = gradient[start : start + rows], labels[start : start + rows]
            block_weights = None if weights is None else weights[start : start + rows]
            scores = block.detach().float().requires_grad_()
            with torch.enable_grad():
                part = _summed(scores, targets, block_weights) / divisor
            block.copy_(torch.autograd.grad(part, scores)[0])
            total += part.detach()
        ctx.gradient = gradient
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:  # noqa: ANN401
        gradient, ctx.gradient = ctx.gradient, None
        # On a CPU, upstream is mostly 1 and skipping the product saves a hundredth of a step; on a
        # GPU, reading upstream would wait for the device.
        if gradient.device.type != "cpu" or upstream.item() != 1:
            gradient.mul_(upstream)
        return gradient, None, None, None
