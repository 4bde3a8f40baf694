"""How probable each token of a reply was to the model, and which others it could have been."""

import inspect
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from response_tuning.models.local import LocalModel, quiet

if TYPE_CHECKING:
    import torch

ALTERNATIVES = 6
"""Tokens that are listed at each place, the reply's own included if it is among them."""
LOGITS_AT_ONCE = 2**25
"""128 MiB in float32: 128 positions of a vocabulary of 262,144."""


class Alternative(NamedTuple):
    """A token that could be at a place."""

    id: int | None
    """None where a server does not say."""
    text: str
    probability: float


class TokenReading(NamedTuple):
    """One token of a reply, as the model that wrote it reads it."""

    id: int | None
    text: str
    """The texts of a reply's tokens join up to the reply. The stop token has its own name."""
    probability: float
    """At temperature 1, whatever the reply was drawn at."""
    rank: int | None
    """1 for the most probable token; None if it is below all that a server names."""
    alternatives: tuple[Alternative, ...]
    """The most probable first."""


def read_tokens(
    local: LocalModel, prompt: Sequence[int], reply: Sequence[int]
) -> list[TokenReading]:
    """Return a reading of each token of ``reply``."""
    import torch

    if not reply:
        return []
    texts = _texts(local, prompt, reply)
    readings: list[TokenReading] = []
    for logits in _logits(local, prompt, reply):  # (positions, V)
        probabilities = torch.softmax(logits.double(), dim=-1)
        top = probabilities.topk(min(ALTERNATIVES, logits.shape[-1]), dim=-1)
        for row, values, ids in zip(probabilities, top.values, top.indices, strict=True):
            at = len(readings)
            own = float(row[reply[at]])
            before = [*prompt, *reply[:at]][-1:]
            others = tuple(
                Alternative(int(one), shown(local, before, int(one)), float(value))
                for one, value in zip(ids, values, strict=True)
            )
            rank = int((row > own).sum()) + 1
            readings.append(TokenReading(reply[at], texts[at], own, rank, others))
    return readings


def shown(local: LocalModel, before: Sequence[int], token: int) -> str:
    """Return the text that a token adds, or its name if it is part of a character or special."""
    text = local.chat.decode([*before, token])[len(local.chat.decode(list(before))) :]
    if text and "\N{REPLACEMENT CHARACTER}" not in text:
        return text
    return str(local.chat.tokenizer.convert_ids_to_tokens(token))


def _texts(local: LocalModel, prompt: Sequence[int], reply: Sequence[int]) -> list[str]:
    """Return what each token adds to the text; a character of several tokens belongs to its last.

    They join up to the reply, with a stop token's name behind it.
    """
    texts: list[str] = []
    read = ""
    for at, token in enumerate(reply):
        if at == len(reply) - 1 and token in local.stop_ids:
            texts.append(local.chat.decode([token]))
            continue
        whole = local.text(prompt, reply[: at + 1])
        cut = at < len(reply) - 1 and whole.endswith("\N{REPLACEMENT CHARACTER}")
        texts.append("" if cut else whole[len(read) :])
        read = read if cut else whole
    return texts


def _logits(
    local: LocalModel, prompt: Sequence[int], reply: Sequence[int]
) -> "Iterator[torch.Tensor]":
    """Yield (positions, V) logits: those that predict the reply's tokens, some at a time.

    In parts over one cache: all at once, a long reply of a large vocabulary would take gigabytes.
    """
    import torch
    from transformers import DynamicCache

    model = local.model
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    keeps_last = "logits_to_keep" in inspect.signature(inner.forward).parameters
    at_once = max(1, LOGITS_AT_ONCE // int(model.config.get_text_config().vocab_size))
    ids = [*prompt, *reply][:-1]  # the last token predicts nothing that is asked for
    cache = DynamicCache(config=model.config)
    # The first part holds the prompt, whose last token predicts the reply's first.
    cuts = [0, *range(min(len(prompt) - 1 + at_once, len(ids)), len(ids), at_once), len(ids)]
    for start, end in pairwise(cuts):
        wanted = end - max(start, len(prompt) - 1)
        with quiet(), torch.inference_mode():
            out = model(
                input_ids=torch.tensor([ids[start:end]], device=model.device),
                past_key_values=cache,
                use_cache=True,
                **({"logits_to_keep": wanted} if keeps_last else {}),
            )
        yield out.logits[0, -wanted:].float()
