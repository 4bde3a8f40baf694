"""Whether a loaded model is what it seems: its numbers, its order of reading, its vocabulary."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from response_tuning.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase


# Largest change of a logit, relative to the largest logit, that rounding may explain.
_ROUNDING = {"torch.float32": 1e-4, "torch.float64": 1e-6}
_HALF_PRECISION = 2e-2
# Nearer than this share of the median row to another row, a row has learnt nothing of its own.
# Rows of added tokens are copies of each other up to rounding, which is 0.004 in bfloat16.
_SAME = 0.01


def check_finite(model: "nn.Module", name: object) -> None:
    """Refuse a model that can say nothing.

    Raises:
        ModelError: one of its weights is infinite or no number.
    """
    for weight, values in model.named_parameters():
        if values.is_floating_point() and not values.is_meta and not values.isfinite().all():
            raise ModelError(
                f"{name}: {weight} holds NaN or infinite numbers, so the model can say nothing; "
                "download it again, or train it again with a lower learning rate"
            )


def check_causal(model: Any, name: object) -> None:  # noqa: ANN401 - PEFT's, or transformers'
    """Refuse a model whose logits are no numbers, or which sees tokens that are yet to come.

    Raises:
        ModelError: it is such a model, an encoder for instance.
    """
    logits = _logits(model)
    if not logits.amax(-1).isfinite().all():
        raise ModelError(f"{name}: its logits are NaN or infinite, so the model can say nothing")
    one, other = logits[:, :-1].float()
    rounding = _ROUNDING.get(str(logits.dtype), _HALF_PRECISION)
    if (one - other).abs().max() > rounding * one.abs().max():
        raise ModelError(
            f"{name}: not a causal language model: what it says of a token depends on later "
            "tokens, as an encoder's does"
        )


def check_converged(model: Any) -> None:  # noqa: ANN401 - PEFT's, or transformers'
    """Refuse a tuned model whose logits are no numbers.

    The loss of a step is measured before its update, so no loss shows what the last one did.

    Raises:
        ModelError: its last steps have diverged.
    """
    if not _logits(model).amax(-1).isfinite().all():
        raise ModelError(
            "the tuned model's logits are NaN or infinite: training has diverged; lower "
            "--learning-rate, and start over with --no-resume or in another --out"
        )


def _logits(model: Any) -> "Tensor":  # noqa: ANN401 - PEFT's, or transformers'
    """Return (2, 6, V): the logits of six tokens, and of the same with another one at the end."""
    import torch

    last = model.config.get_text_config().vocab_size - 1
    first = [min(token, last) for token in range(3, 9)]
    ids = torch.tensor([first, [*first[:-1], 0]], device=model.device)
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits


def beyond(tokenizer: "PreTrainedTokenizerBase", rows: int) -> dict[int, str]:
    """Return the tokens, by their ids, for which an embedding of ``rows`` rows has none.

    Some models have such tokens and never use them: Gemma 3's text models, the image token.
    """
    return {number: token for token, number in tokenizer.get_vocab().items() if number >= rows}


def check_ids(ids: Iterable[int], strange: Mapping[int, str], where: str) -> None:
    """Refuse ids for which the embedding has no row; ``strange`` is what ``beyond`` found.

    Raises:
        ModelError: one of ``ids`` is strange.
    """
    for number in ids:
        if number in strange:
            raise ModelError(
                f"{where} the token {strange[number]!r} (id {number}), for which the model's "
                "embedding has no row"
            )


def is_untrained(model: Any, token: int) -> bool:  # noqa: ANN401 - transformers'
    """Say whether the output embedding of ``token`` tells it from no other token.

    Such a token is never the likeliest one, whatever the layers beneath learn: a row like that of
    another token ties with it, as those of tokens do that no text ever held, and the mean of all
    rows, from which transformers starts added tokens, has the mean logit. A single row of zeros
    can be learnt. docs/log.md has the figures.
    """
    import torch

    head = model.get_output_embeddings()
    if head is None or head.weight.ndim != 2 or not head.weight.is_floating_point():
        return False
    with torch.no_grad():
        rows = head.weight.float()
        row, others = rows[token], torch.cat([rows[:token], rows[token + 1 :]])
        others = torch.cat([others, others.mean(0, keepdim=True)])
        nearest = (others - row).norm(dim=1).min()
        return bool(nearest <= _SAME * rows.norm(dim=1).median())
