"""Refuse a loaded model that cannot work: NaN weights, attention to later tokens, missing rows."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from response_tuning.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


_ROUNDING = {"torch.float32": 1e-4, "torch.float64": 1e-6}
"""Largest change of a logit, relative to the largest logit, that rounding may explain."""
_ROUNDING_HALF = 2e-2
_SAME_ROW = 0.01
"""Distance to the nearest other row, as a share of the median row's norm, below which an embedding
row has learnt nothing of its own. Rows of added tokens are copies up to rounding (0.004 in
bfloat16)."""


def check_finite(model: "nn.Module", name: object) -> None:
    """Refuse a model with a weight that is infinite or NaN.

    Raises:
        ModelError: it has one.
    """
    for weight, values in model.named_parameters():
        if values.is_floating_point() and not values.is_meta and not values.isfinite().all():
            raise ModelError(
                f"{name}: {weight} holds NaN or infinite numbers, so the model cannot generate; "
                "download it again, or train it again with a lower learning rate"
            )


def check_causal(model: Any, name: object) -> None:  # noqa: ANN401 - PEFT's, or transformers'
    """Refuse a model whose logits are NaN or infinite, or depend on later tokens.

    Raises:
        ModelError: it is such a model, for instance an encoder.
    """
    logits = _logits(model)
    if not logits.amax(-1).isfinite().all():
        raise ModelError(f"{name}: its logits are NaN or infinite, so the model cannot generate")
    # The two rows differ in their last token only: a causal model has equal logits before it.
    one, other = logits[:, :-1].float()
    rounding = _ROUNDING.get(str(logits.dtype), _ROUNDING_HALF)
    if (one - other).abs().max() > rounding * one.abs().max():
        raise ModelError(
            f"{name}: not a causal language model: its logits at a token depend on later tokens, "
            "as an encoder's do"
        )


def check_converged(model: Any) -> None:  # noqa: ANN401 - PEFT's, or transformers'
    """Refuse a tuned model whose logits are NaN, infinite, or the same for every token.

    Each step logs the loss before its update, so the losses cannot show what the last update did.
    Finite weights of 1e30 overflow in an RMSNorm, which then returns zeros: such a model finds
    every token as likely as every other.

    Raises:
        ModelError: the last steps diverged.
    """
    logits = _logits(model)
    largest = logits.amax(-1)
    if not largest.isfinite().all() or (largest == logits.amin(-1)).all():
        raise ModelError(
            "the tuned model's logits are NaN, infinite or all the same: training has diverged; "
            "lower --learning-rate, and start over with --no-resume or in another --out"
        )


def _logits(model: Any) -> "Tensor":  # noqa: ANN401 - PEFT's, or transformers'
    """Return (2, 6, V): the logits of six tokens, and of the same with another last token."""
    import torch

    last = model.config.get_text_config().vocab_size - 1
    first = [min(token, last) for token in range(3, 9)]
    ids = torch.tensor([first, [*first[:-1], 0]], device=model.device)
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits


def tokens_without_row(tokenizer: "PreTrainedTokenizerBase", rows: int) -> dict[int, str]:
    """Return the tokens (id -> text) beyond an embedding of ``rows`` rows.

    Some models have such tokens and never use them: Gemma 3's text models, the image token.
    """
    return {number: token for token, number in tokenizer.get_vocab().items() if number >= rows}


def check_ids(ids: Iterable[int], without_row: Mapping[int, str], where: str) -> None:
    """Refuse ids that the embedding has no row for; see ``tokens_without_row``.

    Raises:
        ModelError: ``ids`` holds one; the message begins with ``where``.
    """
    for number in ids:
        if number in without_row:
            raise ModelError(
                f"{where} the token {without_row[number]!r} (id {number}), for which the model's "
                "embedding has no row"
            )


def is_untrained(model: Any, token: int) -> bool:  # noqa: ANN401 - transformers'
    """Say whether the output embedding of ``token`` cannot tell it from other tokens.

    The model can then never rank the token first, whatever the layers below learn. A row equal to
    another token's ties with it (tokens that no text held), and a row equal to the mean of all
    rows (how transformers starts added tokens) always has the mean logit. A single row of zeros
    can still be learnt. docs/log.md has the figures.
    """
    import torch

    head = model.get_output_embeddings()
    if head is None or head.weight.ndim != 2 or not head.weight.is_floating_point():
        return False  # quantised or unusual heads: no statement
    with torch.no_grad():
        rows = head.weight.float()  # (V, hidden)
        row, others = rows[token], torch.cat([rows[:token], rows[token + 1 :]])
        others = torch.cat([others, others.mean(0, keepdim=True)])
        nearest = (others - row).norm(dim=1).min()
        return bool(nearest <= _SAME_ROW * rows.norm(dim=1).median())
