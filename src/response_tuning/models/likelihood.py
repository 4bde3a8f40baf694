"""How probable a model finds a response: log-probabilities of given text.

The prompt is rendered as for generation, and the response is tokenized apart, as in training: what
is scored is exactly what training and serving use.
"""

import inspect
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from response_tuning.errors import EngineError, TemplateError
from response_tuning.likelihoods import Likelihood, Pair, Unscored
from response_tuning.models.local import LocalModel, PromptError, quiet
from response_tuning.templates import UNPREDICTED

if TYPE_CHECKING:
    import torch


LOGITS_PER_BATCH = {"cpu": 2**27, "cuda": 2**29}
"""Logits that a batch may return: 0.5 GiB in float32 on a CPU, 1 GiB in bfloat16 on a GPU. A single
pair is scored whole, however long it is."""
LOGITS_AT_ONCE = 2**25
"""Logits whose logarithmic softmax is computed at once."""


class EncodedPair(NamedTuple):
    """A pair as token ids."""

    prefix: list[int]
    reply: list[int]
    """The response and its end."""


def log_likelihoods(
    local: LocalModel, pairs: Sequence[Pair], tokens_per_batch: int
) -> list[Likelihood | Unscored]:
    """Return the likelihood of each pair's response, in the order of the pairs.

    In float32 the numbers do not depend on the batches, up to rounding.

    Raises:
        TemplateError: the template does not say what ends a reply.
        EngineError: a batch does not fit into the GPU's memory, or logits are NaN or infinite.
    """
    results: list[Likelihood | Unscored | None] = []
    scorable: list[tuple[int, EncodedPair]] = []  # (index in ``results``, the pair)
    for place, pair in enumerate(pairs):
        encoded = encode_pair(local, pair)
        if isinstance(encoded, Unscored):
            results.append(encoded)
        else:
            results.append(None)
            scorable.append((place, encoded))
    # Batches come longest first, so each result is put back into its place.
    for index, logits in logits_of(local, [pair for _, pair in scorable], tokens_per_batch):
        if not logits.amax(-1).isfinite().all():
            raise EngineError("the model's logits are NaN or infinite: its weights are damaged")
        place, encoded = scorable[index]
        results[place] = _likelihood(logits, encoded.reply, local.chat.closing)
    return [result for result in results if result is not None]


def encode_pair(local: LocalModel, pair: Pair) -> EncodedPair | Unscored:
    """Return a pair as token ids, with the end of the reply.

    Raises:
        TemplateError: the template does not say what ends a reply.
    """
    chat = local.chat
    closing = chat.closing
    with quiet():  # of warnings about the length, which is checked below
        try:
            prompt = chat.prompt(pair.prompt) if pair.prompt else chat.opening
        except TemplateError as error:
            return Unscored(str(error))
        # Apart, as in training: no token may straddle the boundary between prompt and response.
        encoded = EncodedPair(chat.encode(prompt), [*chat.encode_reply(pair.response), *closing])
    if not encoded.prefix:
        return Unscored(UNPREDICTED)
    try:
        local.check_ids(encoded.prefix + encoded.reply)
    except PromptError as error:
        return Unscored(str(error))
    length = len(encoded.prefix) + len(encoded.reply)
    if local.context is not None and length > local.context:
        return Unscored(f"longer than the model's context of {local.context} tokens")
    return encoded


def logits_of(
    local: LocalModel, pairs: Sequence[EncodedPair], tokens_per_batch: int
) -> Iterator[tuple[int, "torch.Tensor"]]:
    """Yield (index, logits) of every pair, float32 (len(reply), V), the longest pair first.

    Row k of the logits predicts ``reply[k]``. Pairs are padded on the right, where causal attention
    cannot see it, and the head computes only the positions that some pair of the batch needs.

    Raises:
        EngineError: a batch does not fit into the GPU's memory.
    """
    for indices in _batches(local, pairs, tokens_per_batch):
        batch = [pairs[index] for index in indices]
        start, logits = _forward(local, batch)
        for index, pair, row in zip(indices, batch, logits, strict=True):
            # The last token of the prefix predicts the first token of the reply.
            first = len(pair.prefix) - 1 - start
            yield index, row[first : first + len(pair.reply)].float()


def _likelihood(logits: "torch.Tensor", reply: Sequence[int], closing: Sequence[int]) -> Likelihood:
    """Return the likelihood of a reply that ends in ``closing``; logits are (len(reply), V)."""
    import torch

    # (len(reply), 2): of the reply's token, and of the first token of the end.
    wanted = torch.tensor([[token, closing[0]] for token in reply], device=logits.device)
    rows = max(1, LOGITS_AT_ONCE // logits.shape[1])
    parts = zip(torch.split(logits, rows), torch.split(wanted, rows), strict=True)
    logs = torch.cat([torch.log_softmax(part, dim=-1).gather(1, ids) for part, ids in parts])
    # Sums in float64: in float32, a response of thousands of tokens would lose digits.
    each = logs[:, 0].double()
    tokens = len(reply) - len(closing)
    early = logs[:tokens, 1].exp().double().mean() if tokens else math.nan
    return Likelihood(float(each[:tokens].sum()), tokens, float(each[tokens:].sum()), float(early))


def logits_per_batch(local: LocalModel) -> int:
    """Return the positions at which a batch may have logits."""
    vocabulary: int = local.model.config.get_text_config().vocab_size
    kind = "cpu" if local.model.device.type == "cpu" else "cuda"
    return LOGITS_PER_BATCH[kind] // vocabulary


def _batches(local: LocalModel, pairs: Sequence[EncodedPair], tokens: int) -> Iterator[list[int]]:
    """Yield the indices of batches of about equal length: at most ``tokens`` padded, or one pair.

    The longest first: a batch that does not fit into memory fails at once, not after an hour.
    """
    tokens = min(tokens, logits_per_batch(local))
    lengths = [len(pair.prefix) + len(pair.reply) for pair in pairs]
    left = sorted(range(len(pairs)), key=lambda index: -lengths[index])
    while left:
        count = max(1, tokens // lengths[left[0]])
        yield left[:count]
        left = left[count:]


def _forward(local: LocalModel, pairs: Sequence[EncodedPair]) -> tuple[int, "torch.Tensor"]:
    """Return the first position that has logits, and the logits (B, width - position, V)."""
    import torch

    whole = [pair.prefix + pair.reply for pair in pairs]
    width = max(map(len, whole))
    start = min(len(pair.prefix) for pair in pairs) - 1
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in whole])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in whole])
    model = local.model
    # PEFT's forward hides the arguments of the model that it wraps.
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    # Logits of the last positions only: with a vocabulary of 128,000 they dominate the memory.
    keeps_last = "logits_to_keep" in inspect.signature(inner.forward).parameters
    try:
        with quiet(), torch.inference_mode():
            out = model(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                use_cache=False,
                **({"logits_to_keep": width - start} if keeps_last else {}),
            )
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"out of GPU memory at {len(pairs)} rows: lower --tokens-per-batch"
        ) from error
    return start, out.logits if keeps_last else out.logits[:, start:]
