"""How probable a model finds a reply: log-probabilities of text that is given, not generated.

The prompt is rendered as for generation, and the reply is tokenised apart, as in training: what is
scored is what would be trained on and served.
"""

import inspect
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from response_tuning.errors import EngineError, TemplateError
from response_tuning.likelihoods import Likelihood, Pair, Unscored
from response_tuning.models.local import LocalModel, PromptError, quiet

if TYPE_CHECKING:
    import torch


LOGITS = 2**29
"""Numbers that a batch may leave: 1 GiB of them in bfloat16, 2 GiB in float32."""


class Row(NamedTuple):
    """A pair in ids."""

    prefix: list[int]
    said: list[int]
    """The response, and what ends it."""


def log_likelihoods(
    local: LocalModel, pairs: Sequence[Pair], tokens_per_batch: int
) -> list[Likelihood | Unscored]:
    """Return what the model gives each reply, in the order of the pairs.

    In float32 the numbers do not depend on the batches, up to rounding.

    Raises:
        TemplateError: the template does not say what ends a reply.
        EngineError: a batch does not fit into the GPU's memory, or the logits are no numbers.
    """
    rows = [encoded(local, pair) for pair in pairs]
    found: list[Likelihood | Unscored | None] = [
        row if isinstance(row, Unscored) else None for row in rows
    ]
    places = [place for place, row in enumerate(rows) if isinstance(row, Row)]
    fit = [row for row in rows if isinstance(row, Row)]
    for number, logits in logits_of(local, fit, tokens_per_batch):
        if not logits.amax(-1).isfinite().all():
            raise EngineError("the model's logits are NaN or infinite: its weights are damaged")
        found[places[number]] = _likelihood(logits, fit[number].said, local.chat.closing)
    return [one for one in found if one is not None]


def encoded(local: LocalModel, pair: Pair) -> Row | Unscored:
    """Return a pair in ids, the end of the reply included.

    Raises:
        TemplateError: the template does not say what ends a reply.
    """
    chat = local.chat
    closing = chat.closing
    with quiet():  # of a length that is looked at below
        try:
            prompt = chat.prompt(pair.prompt) if pair.prompt else chat.opening
        except TemplateError as error:
            return Unscored(str(error))
        row = Row(chat.encode(prompt), [*chat.encode_reply(pair.response), *closing])
    try:
        local.check_ids(row.prefix + row.said)
    except PromptError as error:
        return Unscored(str(error))
    length = len(row.prefix) + len(row.said)
    if local.context is not None and length > local.context:
        return Unscored(f"longer than the model's context of {local.context} tokens")
    return row


def logits_of(
    local: LocalModel, rows: Sequence[Row], tokens_per_batch: int
) -> Iterator[tuple[int, "torch.Tensor"]]:
    """Yield (place, logits) of every row, float32 (len(said), vocabulary), the longest row first.

    The k-th logits are what the model has to say about the k-th id of ``said``. Rows are padded on
    the right, where causal attention cannot see it, and the head computes the positions that are
    needed.

    Raises:
        EngineError: a batch does not fit into the GPU's memory.
    """
    for places in _batches(local, rows, tokens_per_batch):
        batch = [rows[place] for place in places]
        start, logits = _forward(local, batch)
        for place, row, scored in zip(places, batch, logits, strict=True):
            first = len(row.prefix) - 1 - start
            yield place, scored[first : first + len(row.said)].float()


def _likelihood(logits: "torch.Tensor", said: Sequence[int], closing: Sequence[int]) -> Likelihood:
    import torch

    logs = torch.log_softmax(logits, dim=-1)
    each = logs.gather(1, torch.tensor(said, device=logs.device)[:, None])[:, 0].double()
    tokens = len(said) - len(closing)
    early = logs[:tokens, closing[0]].exp().double().mean() if tokens else math.nan
    return Likelihood(float(each[:tokens].sum()), tokens, float(each[tokens:].sum()), float(early))


def _batches(local: LocalModel, rows: Sequence[Row], tokens: int) -> Iterator[list[int]]:
    """Split into batches of rows of about one length, at most ``tokens`` with padding, or of one.

    Yields the places of the rows.
    """
    vocabulary = local.model.config.get_text_config().vocab_size
    lengths = [len(row.prefix) + len(row.said) for row in rows]
    left = sorted(range(len(rows)), key=lambda place: -lengths[place])
    while left:
        count = max(1, min(tokens, LOGITS // vocabulary) // lengths[left[0]])
        yield left[:count]
        left = left[count:]


def _forward(local: LocalModel, rows: Sequence[Row]) -> tuple[int, "torch.Tensor"]:
    """Return the first position whose logits are there, and logits (rows, positions, V)."""
    import torch

    whole = [row.prefix + row.said for row in rows]
    width = max(map(len, whole))
    start = min(len(row.prefix) for row in rows) - 1
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in whole])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in whole])
    model = local.model
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    sparing = "logits_to_keep" in inspect.signature(inner.forward).parameters
    try:
        with quiet(), torch.inference_mode():
            out = model(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                use_cache=False,
                **({"logits_to_keep": width - start} if sparing else {}),
            )
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"out of GPU memory at {len(rows)} rows: lower --tokens-per-batch"
        ) from error
    return start, out.logits if sparing else out.logits[:, start:]
