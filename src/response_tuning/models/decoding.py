"""A decoding loop whose rows leave the batch as they end; transformers' ``generate`` runs it.

The loop of transformers computes every row until the last one has ended. Replies differ in length
by an order of magnitude, so most of that work is wasted; and near the end of the context, rows that
have ended would continue beyond the model's last position.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from response_tuning.errors import EngineError

if TYPE_CHECKING:
    import torch
    from transformers import Cache, GenerationConfig, StoppingCriteriaList


Weights = Any
"""A ``PreTrainedModel``, or a ``PeftModel`` around one: they share the methods used here."""


class DecodingBatch(Protocol):
    """The replies that are decoded together."""

    def draw(self) -> Sequence[float]:
        """Return a number in [0, 1) for each row, which decides its next token when sampling."""
        ...

    def append(self, new: list[int]) -> Sequence[int]:
        """Append each row's new token, and return the indices of the rows that continue."""
        ...


def decode(
    model: Weights,
    input_ids: "torch.Tensor",
    logits_processor: "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]",
    stopping_criteria: "StoppingCriteriaList",
    generation_config: "GenerationConfig",
    batch: DecodingBatch,
    **state: Any,  # noqa: ANN401 - the model's other inputs: mask, positions, cache
) -> "torch.Tensor":
    """Generate token by token until no row of ``batch`` continues; the batch alone decides.

    ``generate`` takes this as ``custom_generate`` and prepares everything but the loop.

    Raises:
        EngineError: the model's cache cannot be split by rows, or its logits are NaN or infinite.
    """
    import torch

    step = None  # first the whole prompt, (B, T), then one token at a time, (B, 1)
    while True:
        inputs = model.prepare_inputs_for_generation(
            input_ids, next_sequence_length=step, is_first_iteration=step is None, **state
        )
        out = model(**inputs, return_dict=True)
        state = model._update_model_kwargs_for_generation(out, state)
        if step is None and len(input_ids) > 1:
            _check_cache(model, state)
        # (B, V). A copy, so that the logits of the whole prompt, (B, T, V), can be freed.
        scores = logits_processor(input_ids, out.logits[:, -1].to(torch.float32, copy=True))
        del out
        new = scores.argmax(dim=-1, keepdim=True)
        # Checking the largest is enough: argmax ranks NaN first, and masked tokens (-inf) last.
        if not scores.gather(1, new).isfinite().all():
            raise EngineError(
                "the model's logits are NaN or infinite, so it cannot generate; its weights are "
                "damaged, or too large for their precision"
            )
        if generation_config.do_sample:
            new = _sample(scores, batch.draw())
        input_ids = torch.cat([input_ids, new], dim=1)
        continuing = batch.append(new[:, 0].tolist())
        if not continuing:
            return input_ids
        if (count := len(input_ids)) > len(continuing):
            rows = torch.tensor(continuing, device=input_ids.device)
            input_ids = input_ids[rows]
            state = {name: _select(value, rows, count) for name, value in state.items()}
        step = 1


def _sample(scores: "torch.Tensor", uniform: Sequence[float]) -> "torch.Tensor":
    """Return (B, 1): the token of each row at which the cumulated probability passes its number.

    Inverse transform sampling rather than ``torch.multinomial``, whose draws depend on the batch.
    """
    import torch

    cumulated = scores.double().softmax(dim=-1).cumsum(dim=-1)  # (B, V)
    numbers = torch.tensor(uniform, dtype=torch.float64, device=scores.device)[:, None]
    # Scaled by the row's sum, which rounding may leave below 1: else a number near 1 would select a
    # token beyond the vocabulary.
    return torch.searchsorted(cumulated, numbers * cumulated[:, -1:], right=True)


def _check_cache(model: Weights, state: Mapping[str, object]) -> None:
    """Refuse a batch of several rows unless the cache is transformers' own.

    That cache handles padding, and rows can leave it. RWKV and MiniMax keep other state: even
    transformers' plain ``generate`` answers wrongly when it gives them padded rows.
    """
    from transformers import DynamicCache

    if not any(type(value) is DynamicCache for value in state.values()):
        raise EngineError(
            f"a model of type '{model.config.model_type}' answers one prompt at a time: "
            "use --tokens-per-batch 1"
        )


def _select(value: "Cache | torch.Tensor | object", rows: "torch.Tensor", count: int) -> Any:  # noqa: ANN401
    """Return the part of a batch's state that belongs to ``rows``, of ``count`` before.

    Tensors are (B, T), or (axes, B, T) for positions with several axes (Qwen2-VL). Anything else,
    such as (1, T) for all rows, is returned unchanged.
    """
    import torch
    from transformers import DynamicCache

    if isinstance(value, torch.Tensor) and value.ndim > 1 and value.shape[-2] == count:
        return value.index_select(-2, rows)
    if isinstance(value, DynamicCache):
        value.reorder_cache(rows)  # type: ignore[arg-type] # LongTensor is no type of its own
    return value
