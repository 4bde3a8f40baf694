"""Attention that stays inside each document of a flattened micro-batch.

It is registered with transformers under the name ``documents``: the model's forward receives
``cu_seq_lens_q`` and hands it to every layer, so no model code changes. This attention refuses what
it does not implement (sinks, biases, padding masks), so a model that needs it is never trained on
something slightly different.

Shapes: H query heads, G key-value heads, T tokens of all documents, D head size.
"""

from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

ATTENTION = "documents"

# Arguments that reach every layer without changing which key a query sees: arguments of the loss,
# and positions, which the rotary embeddings have already used.
_HARMLESS = frozenset({"position_ids", "use_cache", "shift_labels", "num_items_in_batch"})


def document_attention(  # noqa: PLR0913 - the signature that transformers calls
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    document_positions: Tensor | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    is_causal: bool | None = None,
    **other: object,
) -> tuple[Tensor, None]:
    """Attend causally within each document.

    ``query`` is (1, H, T, D), ``key`` and ``value`` are (1, G, T, D). ``cu_seq_lens_q`` is
    (documents + 1,), the documents' boundaries, and ``max_length_q`` the longest of them.
    ``sliding_window`` counts the tokens that a query sees, itself included. ``document_positions``,
    (1, T), is given if text is hidden in some document: a window counts hidden tokens too.
    Returns (1, T, H, D).

    Raises:
        NotImplementedError: the model asks for something that is not implemented here.
    """
    other["is_causal=False"] = is_causal is False
    _check_supported(query, attention_mask, cu_seq_lens_q, softcap, other)
    assert cu_seq_lens_q is not None
    dtype = computed_in(query)
    positions = None if sliding_window is None else document_positions
    # The kernel counts the tokens that it is given, so a window over gaps is beyond it.
    if positions is None and _fits_varlen(query, dtype, dropout):
        window = (-1, 0) if sliding_window is None else (sliding_window - 1, 0)
        parts = (query.to(dtype), key.to(dtype), value.to(dtype))
        return _varlen(*parts, cu_seq_lens_q, max_length_q, scaling, window), None
    attend = partial(
        _one_document,
        dropout=dropout,
        scaling=scaling,
        groups=query.shape[1] // key.shape[1],
        window=sliding_window,
        softcap=softcap,
    )
    # One document after another: a mask over all of them would cost T x T, and most of it is cut.
    attended = [
        attend(
            *(heads[:, :, start:end] for heads in (query, key, value)),
            positions=None if positions is None else positions[0, start:end],
        )
        for start, end in pairwise(cu_seq_lens_q.tolist())
    ]
    return torch.cat(attended, dim=2).transpose(1, 2).contiguous(), None


def _check_supported(
    query: Tensor,
    attention_mask: Tensor | None,
    bounds: Tensor | None,
    softcap: float | None,
    other: dict[str, object],
) -> None:
    """Refuse what this attention would otherwise compute wrongly without a sign.

    Raises:
        NotImplementedError: naming the arguments that are not implemented.
    """
    unknown = [
        name
        for name, value in other.items()
        if name not in _HARMLESS and value is not None and value is not False
    ]
    if unknown or attention_mask is not None or bounds is None or query.shape[0] != 1:
        what = ", ".join(unknown) or "padding masks, or batches without document boundaries"
        raise NotImplementedError(f"attention '{ATTENTION}' does not implement {what}")
    if query.is_cuda and softcap is not None:
        raise NotImplementedError(
            f"attention '{ATTENTION}' caps the scores of one document after another, which is "
            "slow on a GPU"
        )


def _one_document(  # noqa: PLR0913 - the parameters of attention
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    dropout: float,
    scaling: float | None,
    groups: int,
    window: int | None,
    softcap: float | None,
    positions: Tensor | None,
) -> Tensor:
    length = query.shape[2]
    mask = None
    if softcap is not None or (window is not None and (length > window or positions is not None)):
        if positions is None:
            positions = torch.arange(length, device=query.device)
        ahead = positions[:, None] - positions[None, :]
        mask = (ahead >= 0) & (ahead < (window or length))
    if softcap is None:
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=dropout,
            is_causal=mask is None,
            scale=scaling,
            enable_gqa=groups > 1,
        )
    # No fused kernel caps its scores. As in Gemma 2: cap after scaling, mask after capping,
    # softmax in float32.
    assert mask is not None
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = query @ key.repeat_interleave(groups, dim=1).transpose(2, 3) * scale
    scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    weights = F.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return F.dropout(weights, p=dropout) @ value.repeat_interleave(groups, dim=1)


def computed_in(tensor: Tensor) -> torch.dtype:
    """Return the precision of a product of ``tensor``.

    Under autocast that is not its own: rotary embeddings make queries and keys float32 again where
    the residual stream is float32.
    """
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


def _fits_varlen(query: Tensor, dtype: torch.dtype, dropout: float) -> bool:
    """Whether torch's variable-length kernel computes this: CUDA, half precision, no dropout."""
    half = dtype in (torch.float16, torch.bfloat16)
    return query.is_cuda and half and query.shape[-1] <= 256 and dropout == 0.0


def _varlen(  # noqa: PLR0913 - the parameters of attention
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bounds: Tensor,
    longest: int,
    scaling: float | None,
    window: tuple[int, int],
) -> Tensor:
    from torch.nn.attention.varlen import varlen_attn

    attended = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        bounds,
        bounds,
        longest,
        longest,
        scale=scaling,
        # Causal is the tuple (-1, 0); a window of W tokens, itself included, is (W - 1, 0).
        window_size=window,
        enable_gqa=key.shape[1] != query.shape[1],
    )
    assert isinstance(attended, Tensor)
    return attended.unsqueeze(0)


def _no_mask(*args: object, attention_mask: Tensor | None = None, **kwargs: object) -> None:
    """Build no mask, because boundaries replace it; refuse a padding mask, which would be lost.

    Raises:
        NotImplementedError: the batch has a padding mask.
    """
    if attention_mask is not None:
        raise NotImplementedError(f"attention '{ATTENTION}' takes no padding mask")


AttentionInterface.register(ATTENTION, document_attention)
AttentionMaskInterface.register(ATTENTION, _no_mask)
