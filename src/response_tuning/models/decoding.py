"""A batch from which rows leave as they end: what ``generate`` of transformers runs for us.

Its own loop computes every row until the last one has ended. Replies differ in length by an order
of magnitude, so most of that is thrown away; and near the end of the context, rows that have ended
would run on beyond the last position that the model has.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from response_tuning.errors import EngineError

if TYPE_CHECKING:
    import torch
    from transformers import Cache, GenerationConfig, StoppingCriteriaList


Weights = Any
"""A ``PreTrainedModel``, or a ``PeftModel`` around one: they share what is used of them here."""


class Rows(Protocol):
    """Whose replies are decoded together."""

    def draw(self) -> Sequence[float]:
        """Return a number from 0 to below 1 for each row: where one is drawn, its next token."""
        ...

    def take(self, new: list[int]) -> Sequence[int]:
        """Take the new token of each row, and return the places of the rows that go on."""
        ...


def decode(
    model: Weights,
    input_ids: "torch.Tensor",
    logits_processor: "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]",
    stopping_criteria: "StoppingCriteriaList",
    generation_config: "GenerationConfig",
    batch: Rows,
    **state: Any,  # noqa: ANN401 - what the model needs besides: mask, positions, cache
) -> "torch.Tensor":
    """Say one token after another, until ``batch`` lets no row go on; it alone decides who stops.

    It is given to ``generate`` as ``custom_generate``, which prepares everything but the loop.

    Raises:
        EngineError: the model keeps something of its rows that cannot be parted, or its logits
            are no numbers.
    """
    import torch

    step = None  # the whole prompt at first, then one token at a time
    while True:
        inputs = model.prepare_inputs_for_generation(
            input_ids, next_sequence_length=step, is_first_iteration=step is None, **state
        )
        out = model(**inputs, return_dict=True)
        state = model._update_model_kwargs_for_generation(out, state)
        if step is None and len(input_ids) > 1:
            _check(model, state)
        # A copy, so that the logits of a whole prompt can go.
        scores = logits_processor(input_ids, out.logits[:, -1].to(torch.float32, copy=True))
        del out
        new = scores.argmax(dim=-1, keepdim=True)
        # NaN counts as the largest number of a row; what is masked is minus infinity, and is not.
        if not scores.gather(1, new).isfinite().all():
            raise EngineError(
                "the model's logits are NaN or infinite, so it says nothing; its weights are "
                "damaged, or too large for their precision"
            )
        if generation_config.do_sample:
            new = _drawn(scores, batch.draw())
        input_ids = torch.cat([input_ids, new], dim=1)
        going = batch.take(new[:, 0].tolist())
        if not going:
            return input_ids
        if (count := len(input_ids)) > len(going):
            rows = torch.tensor(going, device=input_ids.device)
            input_ids = input_ids[rows]
            state = {name: _select(value, rows, count) for name, value in state.items()}
        step = 1


def _drawn(scores: "torch.Tensor", chances: Sequence[float]) -> "torch.Tensor":
    """Return the token of each row (B, 1) at which its summed probability passes its chance."""
    import torch

    summed = scores.double().softmax(dim=-1).cumsum(dim=-1)
    chance = torch.tensor(chances, dtype=torch.float64, device=scores.device)[:, None]
    # Scaled, for rounding may leave the whole at less than 1: a token of no probability beyond.
    return torch.searchsorted(summed, chance * summed[:, -1:], right=True)


def _check(model: Weights, state: Mapping[str, object]) -> None:
    """Refuse to answer several at once unless the cache is the library's own.

    That one knows of padding, and rows can leave it. RWKV and MiniMax keep something else: even the
    plain ``generate`` of transformers answers wrongly when they are given padded rows.
    """
    from transformers import DynamicCache

    if not any(type(value) is DynamicCache for value in state.values()):
        raise EngineError(
            f"a model of type '{model.config.model_type}' answers one prompt at a time: "
            "use --tokens-per-batch 1"
        )


def _select(value: "Cache | torch.Tensor | object", rows: "torch.Tensor", count: int) -> Any:  # noqa: ANN401
    """Return what of a state of ``count`` rows belongs to ``rows``; the rest comes back as it is.

    Tensors are (B, T), or (axes, B, T) where positions have axes, or have one row for all.
    """
    import torch
    from transformers import DynamicCache

    if isinstance(value, torch.Tensor) and value.ndim > 1 and value.shape[-2] == count:
        return value.index_select(-2, rows)
    if isinstance(value, DynamicCache):
        value.reorder_cache(rows)  # type: ignore[arg-type] # LongTensor is no type of its own
    return value
