"""Which model the weights in memory are, by what they compute and not by what they are called.

A name can be attached to the wrong weights: an adapter that was left on, or two panes that were
mixed up. So a few fixed tokens are put through the weights when they are loaded, and again before
each answer. The weights are then recognised by the nearest logits.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from response_tuning.models.decoding import Weights

if TYPE_CHECKING:
    import torch

Fingerprint = Any
"""A ``torch.Tensor`` (V,), float32: the logits after ``PROBE`` tokens."""
PROBE = 12
"""Number of tokens that are put through the weights."""
TOLERANCE = 1e-3
"""Share of the largest logit by which two measurements of the same weights may differ. On a CPU
they are equal; a GPU may add in another order."""


def fingerprint(model: Weights, rows: int | None) -> Fingerprint:
    """Return the logits after ids 1, 2, 3, ..., which every tokenizer has."""
    import torch

    ids = torch.arange(1, PROBE + 1) % (rows or PROBE + 1)
    with torch.inference_mode():
        out = model(input_ids=ids[None].to(model.device), use_cache=False)
    return out.logits[0, -1].float().cpu()  # (V,)


def recognised(measured: Fingerprint, known: Mapping[str, Fingerprint], claimed: str) -> str:
    """Return the identity in ``known`` with the nearest fingerprint; empty if none is near.

    ``claimed`` wins a tie: two names may hold the same weights.
    """
    names = [claimed, *(name for name in known if name != claimed)]
    found, least = "", float("inf")
    for name in names:
        distance = _distance(measured, known[name]) if name in known else float("inf")
        if distance < least and distance <= TOLERANCE:
            found, least = name, distance
    return found


def _distance(one: "torch.Tensor", other: "torch.Tensor") -> float:
    """Return the largest difference, relative to the largest logit."""
    if one.shape != other.shape:
        return float("inf")
    return float((one - other).abs().max() / other.abs().max().clamp(min=1e-6))
