"""Response ranking: does a model find an instruction's own response likelier than others?

After Hewitt et al. 2024 (2409.14254, section 4.2): the response y of an instruction x wins against
another desirable response y' where p(y | x) > p(y' | x).

Three measures are ranked by: the *total* log p(y | x) (their equation 3), its mean *per token* (as
their code does) and *pmi*, log p(y | x) - log p(y), which is free of how likely the response is by
itself. A metric's value is an item's share of wins among its wins and losses. Measures that are
nearer than ``TIE`` tie: that is neither a win nor a loss, but counted under ``tied`` and named.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from response_tuning.artifacts import Message, Score
from response_tuning.errors import DataError
from response_tuning.pairs import Likelihood, Pair, Unscored

MEASURES = ("total", "per_token", "pmi")
TIE = 1e-4
"""Nats. Rounding in float32 is below it."""
CHANCE = 0.5
OVERLAP = 0.75
"""Above what models that follow no instruction reach by pmi, as responses share words with their
instructions: 0.50 with random weights, 0.59 and 0.72 with two tiny models that were trained on
other text than they were probed with (docs/how-to/probe.md)."""
ITEMS_AT_ONCE = 100
"""Items whose responses are scored between two signs of life."""

Likelihoods: TypeAlias = Callable[[Sequence[Pair]], Sequence[Likelihood | Unscored]]
"""Asks a model: one answer for each pair, in their order."""
Verdict = Literal["none", "weak", "strong"]


class Fit(NamedTuple):
    """How well a response fits an instruction, as a model has it."""

    given: Likelihood
    """With the instruction: log p(y | x)."""
    alone: Likelihood
    """Without any: log p(y)."""

    def measure(self, name: str) -> float:
        """Return one of ``MEASURES``, in nats."""
        by_name = {
            "total": self.given.total,
            "per_token": self.given.per_token,
            "pmi": self.given.total - self.alone.total,
        }
        return by_name[name]


class Ranking(NamedTuple):
    """What a model made of all items."""

    scores: list[Score]
    left_out: Counter[str]
    """Reason -> items, or comparisons of an item, that cannot be scored."""


def rank(
    prompts: Mapping[str, tuple[Message, ...]],
    drawn: Mapping[str, Sequence[str]],
    responses: Mapping[str, str],
    likelihoods: Likelihoods,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Ranking:
    """Have a model rank each item's own response among those that are drawn, and say where it ends.

    Beside the metrics of ``ranked`` there are ``log_p_per_token`` and the same ``_alone``, in nats;
    ``stop_at_end``, the probability of ending where the response ends; and ``stop_early``, that of
    ending at a token before, in the mean over these.

    Args:
        prompts: What each item asks, by its name.
        drawn: The items whose responses are compared with each item's own: see ``draws``.
        responses: Each item's own response.
        likelihoods: Asks the model.
        progress: Hears (done, all) of the items.

    Raises:
        DataError: nothing can be scored.
    """
    names = [*prompts]
    found = Ranking([], Counter())
    alone: dict[str, Likelihood | Unscored] = {}
    chunks = [names[at : at + ITEMS_AT_ONCE] for at in range(0, len(names), ITEMS_AT_ONCE)]
    for chunk in chunks:
        alone |= zip(chunk, likelihoods([Pair((), responses[name]) for name in chunk]), strict=True)
    done = 0
    for chunk in chunks:
        both = [(name, other) for name in chunk for other in (name, *drawn[name])]
        asked = [Pair(prompts[name], responses[other]) for name, other in both]
        given = dict(zip(both, likelihoods(asked), strict=True))
        for name in chunk:
            there = {other: given[name, other] for other in (name, *drawn[name])}
            found.scores.extend(_scores(name, there, alone, found.left_out))
        done += len(chunk)
        progress(done, len(names))
    if not any(score.metric == "ranked_pmi" for score in found.scores):
        reasons = [f"{count:,} {reason}" for reason, count in found.left_out.items()]
        raise DataError(f"no response can be ranked: {', '.join(reasons) or 'all of them tie'}")
    return found


def draws(responses: Mapping[str, str], count: int, seed: int) -> dict[str, tuple[str, ...]]:
    """Return for each item the items whose responses it is compared with.

    They have other texts than its own; ``count`` of them, or as many as there are. Items are drawn,
    not texts: were a frequent text drawn as seldom as a rare one, a model that likes frequent texts
    would rank them above chance. A draw depends on the seed, the item's name and the pool.

    Args:
        responses: The response of every item by its name.
        count: How many others, at least one.
        seed: Of the draws.

    Raises:
        DataError: all responses are the same.
    """
    items = sorted(responses, key=lambda item: (responses[item], item))  # one text is one block
    block: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        block.setdefault(responses[item], []).append(place)
    if len(block) < 2:
        raise DataError("ranking needs responses that differ; all of these are the same")
    found = {}
    for item, text in responses.items():
        own = block[text]
        others = range(len(items) - len(own))
        drawn = random.Random(f"{seed} {item}").sample(others, min(count, len(others)))
        found[item] = tuple(items[n if n < own[0] else n + len(own)] for n in drawn)
    return found


def ranked(item_id: str, own: Fit, others: Mapping[str, Fit]) -> Iterator[Score]:
    """Yield the scores of one item: its rank by each measure, its ties and its ``pmi`` in nats.

    An item that ties with all others by a measure has no rank by it.

    Args:
        item_id: The item.
        own: Of its own response.
        others: Of other items' responses, to this item's instruction.
    """
    tied = []
    for name in MEASURES:
        margins = {other: own.measure(name) - fit.measure(name) for other, fit in others.items()}
        ties = [other for other, margin in margins.items() if abs(margin) < TIE]
        tied += [f"{name}: {other}" for other in ties]
        wins = sum(margin >= TIE for margin in margins.values())
        decided = len(margins) - len(ties)
        if decided:
            said = f"{wins} of {decided}"
            yield _score(item_id, f"ranked_{name}", wins / decided, said)
    yield _score(item_id, "tied", len(tied) / (len(MEASURES) * len(others)), ", ".join(tied))
    yield _score(item_id, "pmi", own.measure("pmi"))


def verdict(ranked_pmi_low: float, pmi_low: float) -> Verdict:
    """Say how far a model ties responses to their instructions.

    *strong*: its own responses win by pmi more often than ``OVERLAP``, and an instruction makes its
    response likelier; *weak*: they win more often than by chance, which words in common can do;
    *none*: not even that. What counts is the lower end of the intervals.
    """
    if ranked_pmi_low > OVERLAP and pmi_low > 0:
        return "strong"
    return "weak" if ranked_pmi_low > CHANCE else "none"


def _scores(
    name: str,
    given: Mapping[str, Likelihood | Unscored],
    alone: Mapping[str, Likelihood | Unscored],
    left_out: Counter[str],
) -> Iterator[Score]:
    """Yield the scores of one item; what cannot be scored is counted in ``left_out``."""
    both = (given[name], alone[name])
    unfit = [one.reason for one in both if isinstance(one, Unscored)]
    if unfit:
        left_out[f"items: {unfit[0]}"] += 1
        return
    fits = {other: fit for other in given if (fit := _fit(given[other], alone[other]))}
    own = fits.pop(name)
    if len(fits) + 1 < len(given):
        reason = "comparisons: the other response cannot be scored"
        left_out[reason] += len(given) - len(fits) - 1
    if not fits:
        left_out["items: no other response can be scored"] += 1
        return
    yield from ranked(name, own, fits)
    yield _score(name, "log_p_per_token", own.given.per_token)
    yield _score(name, "log_p_per_token_alone", own.alone.per_token)
    yield _score(name, "stop_at_end", math.exp(own.given.ending))
    yield _score(name, "stop_early", own.given.early)


def _fit(given: Likelihood | Unscored, alone: Likelihood | Unscored) -> Fit | None:
    if isinstance(given, Unscored) or isinstance(alone, Unscored):
        return None
    return Fit(given, alone)


def _score(item_id: str, metric: str, value: float, explanation: str = "") -> Score:
    return Score(item_id=item_id, metric=metric, value=value, explanation=explanation)
