"""Predictors that need the logits at every position of a response, or the state before it."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from response_tuning.likelihoods import Pair, Unscored
from response_tuning.models.likelihood import EncodedPair, encode_pair, logits_of
from response_tuning.models.local import LocalModel, quiet

if TYPE_CHECKING:
    pass

RANKS = (1, 3)


def from_positions(
    local: LocalModel, pairs: Sequence[Pair], tokens_per_batch: int
) -> dict[str, float]:
    """Return ``token_rank``, ``token_rank_3`` and ``stop_auc`` over the pairs that can be scored.

    Shares are over all tokens of all responses, as in URIAL. The AUC is the chance that log p(end)
    at the end of a response is higher than inside one.
    """
    import torch

    encoded = _scorable(local, pairs)
    first_end = local.chat.closing[0]
    ranks: list[torch.Tensor] = []
    at_end: list[float] = []
    inside: list[float] = []
    for index, logits in logits_of(local, encoded, tokens_per_batch):
        logs = torch.log_softmax(logits.cpu(), dim=-1)  # (len(reply), V)
        tokens = torch.tensor(encoded[index].reply)[:, None]
        words = len(encoded[index].reply) - len(local.chat.closing)
        ranks.append((1 + (logs > logs.gather(1, tokens)).sum(dim=-1))[:words])
        stops = logs[:, first_end].tolist()
        inside += stops[:words]
        at_end.append(stops[words])
    every = torch.cat(ranks) if ranks else torch.empty(0)
    share = {
        rank: float((every <= rank).double().mean()) if len(every) else math.nan for rank in RANKS
    }
    return {
        "token_rank": share[1],
        "token_rank_3": share[3],
        "stop_auc": _auc(at_end, inside),
    }


def h_score(local: LocalModel, pairs: Sequence[Pair]) -> float:
    """Return the shrunk H-score of the last state before a response for its first token.

    tr(cov(f)^-1 cov(E[f | class])), with the covariance of Ledoit and Wolf. First tokens that begin
    one response alone are one class. NaN if there is a single class.
    """
    import numpy as np
    import torch
    from sklearn.covariance import LedoitWolf

    encoded = _scorable(local, pairs)
    states = []
    for pair in encoded:
        with quiet(), torch.inference_mode():
            out = local.model(
                input_ids=torch.tensor([pair.prefix], device=local.model.device),
                use_cache=False,
                output_hidden_states=True,
            )
        states.append(out.hidden_states[-1][0, -1].double().cpu().numpy())
    first = [pair.reply[0] for pair in encoded]
    classes = [token if first.count(token) > 1 else -1 for token in first]
    if len(set(classes)) < 2:
        return math.nan
    features = np.stack(states)  # (items, width)
    features -= features.mean(axis=0)
    covariance = LedoitWolf(assume_centered=True).fit(features).covariance_
    means = np.stack([features[[c == one for one in classes]].mean(axis=0) for c in classes])
    return float(np.trace(np.linalg.pinv(covariance) @ (means.T @ means) / len(means)))


def _scorable(local: LocalModel, pairs: Sequence[Pair]) -> list[EncodedPair]:
    every = (encode_pair(local, pair) for pair in pairs)
    return [pair for pair in every if not isinstance(pair, Unscored)]


def _auc(higher: Sequence[float], lower: Sequence[float]) -> float:
    from scipy.stats import mannwhitneyu

    if not (higher and lower):
        return math.nan
    return float(mannwhitneyu(higher, lower).statistic / (len(higher) * len(lower)))
