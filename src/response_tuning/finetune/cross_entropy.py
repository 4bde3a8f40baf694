"""Cross-entropy of a causal model without the memory that the usual one takes.

Logits are the largest tensor of a small model: (S, V) for S supervised positions. Stock
cross-entropy keeps three more of that size, in float32: a copy, its logarithmic softmax, and the
gradient. ``cross_entropy`` goes through the logits a block of rows at a time and leaves the
gradient in their place. ``of_hidden`` is given hidden states, (S, D), and makes logits and
gradients of a chunk of positions at a time, so (S, V) never exists whole.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformers.loss.loss_utils import ForCausalLMLoss

from response_tuning.models.head import Deferred

if TYPE_CHECKING:
    from transformers import PreTrainedModel


BLOCK = {"cpu": 2**20, "cuda": 2**25}
"""Logits at once: few enough for the cache of a CPU, many enough to keep a GPU busy."""

CHUNK = {"cpu": 2**26, "cuda": 2**29}
"""Logits of a chunk: 256 MiB of them in float32 on a CPU, 1 GiB in bfloat16 on a GPU. Half as many
took as long on a CPU with 262,144 tokens, and a quarter 7 % longer. A GPU adds up the gradient of
the head's weight faster with fewer chunks; not measured there."""


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


def _overwritten(
    logits: Tensor, labels: Tensor, divisor: Tensor | float, weights: Tensor | None
) -> Tensor:
    """Write the gradient of ``logits``, (S, V) without one, over them, and return the loss."""
    total = torch.zeros((), device=logits.device)
    for part in _slices(BLOCK, logits.shape[1], labels):
        scores = logits[part].detach().float().requires_grad_()
        with torch.enable_grad():
            loss = _summed(scores, labels[part], _part(weights, part)) / divisor
        logits[part].copy_(torch.autograd.grad(loss, scores)[0])
        total += loss.detach()
    return total


def _slices(most: Mapping[str, int], vocabulary: int, labels: Tensor) -> Iterator[slice]:
    """Yield slices of the positions, so that each has at most so many logits, or one position."""
    rows = max(1, most["cpu" if labels.device.type == "cpu" else "cuda"] // vocabulary)
    for start in range(0, len(labels), rows):
        yield slice(start, start + rows)


def _part(weights: Tensor | None, part: slice) -> Tensor | None:
    return None if weights is None else weights[part]


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
        gradient = logits.detach()
        total = _overwritten(gradient, labels, divisor, weights)
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


def of_hidden(
    head: Deferred,
    labels: Tensor,
    num_items_in_batch: Any,  # noqa: ANN401 - a number or a tensor of one, as transformers'
    weights: Tensor | None = None,
) -> Tensor:
    """Return the loss of ``cross_entropy`` from the hidden states that ``head`` has kept.

    ``labels`` and ``weights`` are (S,), in any number of dimensions. Chunks change the loss and the
    gradients by rounding alone; up to one chunk, not at all.
    """
    assert head.hidden is not None
    hidden = head.hidden.reshape(-1, head.hidden.shape[-1])  # (S, D)
    inputs = (hidden, head.weight, head.bias)
    wanted = tuple(
        torch.is_grad_enabled() and each is not None and each.requires_grad for each in inputs
    )
    apply: Callable[..., Tensor] = _OfHidden.apply
    return apply(*inputs, labels.view(-1), num_items_in_batch or 1, weights, wanted)


class _OfHidden(torch.autograd.Function):
    """Linear head and cross-entropy; gradients are computed with the loss, chunk by chunk."""

    @staticmethod
    def forward(  # noqa: PLR0913 - what the head and the loss need
        ctx: Any,  # noqa: ANN401
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        divisor: Tensor | float,
        weights: Tensor | None,
        wanted: tuple[bool, bool, bool],
    ) -> Tensor:
        inputs = (hidden, weight, bias)
        found = [
            torch.zeros_like(each) if each is not None and is_wanted else None
            for each, is_wanted in zip(inputs, wanted, strict=True)
        ]
        hidden, factor, offset = map(_as_autocast, inputs)
        total = torch.zeros((), device=hidden.device)
        for part in _slices(CHUNK, len(weight), labels):
            logits = F.linear(hidden[part], factor, offset)
            if not any(wanted):
                loss = _summed(logits.float(), labels[part], _part(weights, part))
                total += loss / divisor
                continue
            total += _overwritten(logits, labels[part], divisor, _part(weights, part))
            of_hidden, of_weight, of_bias = found
            if of_hidden is not None:
                of_hidden[part] = logits @ factor
            if of_weight is not None:
                _add_product(of_weight, logits.T, hidden[part])
            if of_bias is not None:
                of_bias += logits.sum(0)
        ctx.gradients = found
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        gradients, ctx.gradients = ctx.gradients, None
        if upstream.device.type != "cpu" or upstream.item() != 1:  # see ``_InPlace``
            for gradient in gradients:
                if gradient is not None:
                    gradient.mul_(upstream)
        return (*gradients, None, None, None, None)


def _as_autocast(tensor: Tensor | None) -> Any:  # noqa: ANN401 - a Tensor, or None
    """Return ``tensor`` as autocast, if it is on, would give it to a linear layer."""
    if tensor is None or not torch.is_autocast_enabled(tensor.device.type):
        return tensor
    return tensor.to(torch.get_autocast_dtype(tensor.device.type))


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add ``left @ right`` to ``total``; without a copy of its size, if all are of one type."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
