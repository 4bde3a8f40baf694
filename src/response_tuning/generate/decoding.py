"""A batch from which rows leave as they end: what ``generate`` of transformers runs for us.

Its own loop computes every row until the last one has ended. Replies differ in length by an order
of magnitude, so most of that is thrown away; and near the end of the context, rows that have ended
would run on beyond the last position that the model has.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import (
        Cache,
        GenerationConfig,
        LogitsProcessorList,
        PreTrainedModel,
        StoppingCriteriaList,
    )

Take = Callable[[list[int]], Sequence[int]]
"""Is given the new token of each row, and returns the places of the rows that go on."""


def decode(
    model: "PreTrainedModel",
    input_ids: "torch.Tensor",
    logits_processor: "LogitsProcessorList",
    stopping_criteria: "StoppingCriteriaList",
    generation_config: "GenerationConfig",
    take: Take,
    **state: Any,  # noqa: ANN401 - what the model needs besides: mask, positions, cache
) -> "torch.Tensor":
    """Say one token after another, until ``take`` lets no row go on; it alone decides who stops."""
    import torch

    step = None  # the whole prompt at first, then one token at a time
    while True:
        inputs = model.prepare_inputs_for_generation(
            input_ids, next_sequence_length=step, is_first_iteration=step is None, **state
        )
        out = model(**inputs, return_dict=True)
        state = model._update_model_kwargs_for_generation(out, state)
        scores = logits_processor(input_ids, out.logits[:, -1].float())
        del out
        if generation_config.do_sample:
            new = torch.multinomial(scores.softmax(dim=-1), num_samples=1)
        else:
            new = scores.argmax(dim=-1, keepdim=True)
        input_ids = torch.cat([input_ids, new], dim=1)
        going = take(new[:, 0].tolist())
        if not going:
            return input_ids
        if len(going) < len(input_ids):
            rows = torch.tensor(going, device=input_ids.device)
            input_ids = input_ids[rows]
            state = {name: _select(value, rows) for name, value in state.items()}
        step = 1


def _select(value: "Cache | torch.Tensor | object", rows: "torch.Tensor") -> Any:  # noqa: ANN401
    """Return the part of a state that belongs to ``rows``; what has no rows comes back as it is."""
    import torch

    if isinstance(value, torch.Tensor) and value.ndim > 1:
        return value.index_select(-2, rows)  # (B, T), or (axes, B, T) where positions have axes
    if hasattr(value, "reorder_cache"):  # every kind of cache has it, for beam search
        value.reorder_cache(rows)
    return value
