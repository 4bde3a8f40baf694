"""SFTMix: mixtures of rows that a model is sure of and of others (Xiao et al., arXiv 2410.05248).

The loss of a step is the tokens' cross-entropy plus mu times that of mixtures. A mixture of two
responses takes the first N positions of both, N the length of the shorter one: its hidden states
are lambda h_c + (1 - lambda) h_u, its targets lambda y_c + (1 - lambda) y_u. The head is linear, so
mixed hidden states have mixed logits, and the cross-entropy against mixed targets is

    lambda CE(logits, y_c) + (1 - lambda) CE(logits, y_u).

Hidden states are taken after the final norm; the paper does not say which. One lambda a pair, from
Beta(alpha, alpha); gradients go through both rows; the mean is over all mixed positions of a step.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from random import Random
from statistics import median
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from response_tuning.errors import DataError
from response_tuning.finetune.losses import DocumentLoss, Scored, Term, token_term
from response_tuning.finetune.steps import Document, Partners, gathered

Split = Literal["confidence", "random", "length"]


def mixup_loss(
    mu: float,
    alpha: float,
    partners: Callable[[Sequence[int]], Partners] | None,
    tokens_factor: float = 1.0,
) -> DocumentLoss:
    """Return the loss; ``tokens_factor`` scales the cross-entropy of the plain rows.

    What is only logged: the share of the pairs' positions that are mixed, and the stop tokens
    among them a pair (2 where both responses are equally long, else 1).
    """
    return DocumentLoss(
        (
            token_term(tokens_factor),
            Term("mixed", _positions, lambda scored: mixed(scored, alpha), mu),
            Term("mixed_share", _tokens_of_pairs, lambda s: _counted(s, _mixed_tokens), 0),
            Term("mixed_stops", lambda d: len(_pairs(d)), lambda s: _counted(s, _stops), 0),
        ),
        partners,
    )


def mixed(scored: Scored, alpha: float) -> Tensor:
    """Return the sum of the cross-entropy of every mixed position."""
    logits = scored.logits.split(scored.counts)  # type: ignore[no-untyped-call]
    targets = scored.targets.split(scored.counts)  # type: ignore[no-untyped-call]
    total = scored.logits.new_zeros(())
    for first, second in _places_of_pairs(scored.documents):
        share = drawn_share(scored.documents[first], alpha)
        count = min(scored.counts[first], scored.counts[second])
        both = torch.lerp(logits[second][:count], logits[first][:count], share)
        for place, part in ((first, share), (second, 1 - share)):
            total = total + part * F.cross_entropy(both, targets[place][:count], reduction="sum")
    return total


def drawn_share(document: Document, alpha: float) -> float:
    """Return lambda of a pair: the weight of its confident row, from the seed that both share."""
    return Random(document.seed).betavariate(alpha, alpha)


def split_partners(
    scores: Sequence[float], lengths: Sequence[int], split: Split, seed: int
) -> Callable[[Sequence[int]], Partners]:
    """Return what pairs a confident row with an unconfident one, at random in each epoch.

    ``scores`` and ``lengths`` are by the position of the example. The confident rows are those
    above the median; ties are unconfident. ``random`` splits by a number drawn from the seed, and
    ``length`` within each tenth of the lengths. A row without a partner is alone.

    Raises:
        DataError: an example that is trained on has no score.
    """

    def of(examples: Sequence[int]) -> Partners:
        lacking = next((one for one in examples if math.isnan(scores[one])), None)
        if lacking is not None:
            raise DataError(
                f"the reference run has no confidence of example {lacking + 1}; tune it with the "
                "same objective, window and eval_fraction"
            )
        numbers = dict(zip(examples, range(len(examples)), strict=True))
        if split == "random":
            draw = Random(seed)
            value = {example: draw.random() for example in examples}
        else:
            value = {example: scores[example] for example in examples}
        groups = _tenths(examples, lengths) if split == "length" else [list(examples)]
        confident = [one for group in groups for one in _above_median(group, value)]
        sure = {*confident}
        unsure = [example for example in examples if example not in sure]

        def partners(random: Random) -> list[list[int]]:
            first = random.sample(confident, len(confident))
            second = random.sample(unsure, len(unsure))
            pairs = [[numbers[a], numbers[b]] for a, b in zip(first, second, strict=False)]
            alone = first[len(pairs) :] + second[len(pairs) :]
            return pairs + [[numbers[one]] for one in alone]

        return partners

    return of


def _above_median(group: Sequence[int], value: dict[int, float]) -> list[int]:
    """Return the half of ``group`` with the larger values; of equal values, none at the median."""
    middle = median(value[one] for one in group)
    return [one for one in group if value[one] > middle]


def _tenths(examples: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    ordered = sorted(examples, key=lambda example: (lengths[example], example))
    bounds = [len(ordered) * part // 10 for part in range(11)]
    return [ordered[start:end] for start, end in pairwise(bounds) if end > start]


def _places_of_pairs(documents: Sequence[Document]) -> Iterator[tuple[int, int]]:
    units = gathered(range(len(documents)), lambda place: documents[place].group)
    return ((first, second) for first, second in (unit for unit in units if len(unit) == 2))


def _pairs(documents: Sequence[Document]) -> list[tuple[Document, Document]]:
    return [(documents[a], documents[b]) for a, b in _places_of_pairs(documents)]


def _positions(documents: Sequence[Document]) -> float:
    return sum(min(a.supervised, b.supervised) for a, b in _pairs(documents))


def _tokens_of_pairs(documents: Sequence[Document]) -> float:
    return sum(a.supervised + b.supervised for a, b in _pairs(documents))


def _mixed_tokens(first: Document, second: Document) -> int:
    return 2 * min(first.supervised, second.supervised)


def _stops(first: Document, second: Document) -> int:
    return 1 + (first.supervised == second.supervised)


def _counted(scored: Scored, count: Callable[[Document, Document], int]) -> Tensor:
    total = sum(count(*pair) for pair in _pairs(scored.documents))
    return scored.logits.new_tensor(float(total))
