"""Response ranking: does a model find an instruction's own response likelier than other responses?

After Hewitt et al. 2024 (2409.14254, section 4.2): the response y of an instruction x wins against
another desirable response y' if p(y | x) > p(y' | x).

Responses are ranked by three measures: the *total* log p(y | x) (their equation 3), its mean *per
token* (as their code does) and *pmi*, log p(y | x) - log p(y), which does not depend on how likely
the response is by itself. A metric's value is an item's share of wins among its wins and losses.
Measures closer than ``TIE_NATS`` tie: a tie is neither a win nor a loss, and ``tied`` counts it.

Responses share words with their instructions, and counting these words ranks nine in ten correctly.
So *words* ranks the same draws without any model: the baseline that a model has to beat.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from response_tuning.artifacts import Message, Score
from response_tuning.errors import DataError
from response_tuning.likelihoods import Likelihood, Pair, Unscored
from response_tuning.pairing import shared_words

RANKED_BY = ("total", "per_token", "pmi")
TIE_NATS = 1e-4
"""Above the rounding of float32."""
CHANCE = 0.5
MARGIN = 0.05
"""How far a model may stay below the ranking by words and still be called strong."""
ITEMS_AT_ONCE = 100
"""Items that are scored between two progress updates."""

Scorer: TypeAlias = Callable[[Sequence[Pair]], Sequence[Likelihood | Unscored]]
"""Scores pairs with a model: one result for each pair, in their order."""
ProbeVerdict = Literal["none", "weak", "strong"]


class ResponseFit(NamedTuple):
    """How well a response fits an instruction, according to a model."""

    given: Likelihood
    """With the instruction: log p(y | x)."""
    alone: Likelihood
    """Without an instruction: log p(y)."""
    words: float
    """Share of the response's words that are in the instruction; see ``shared_words``."""

    def measure(self, name: str) -> float:
        """Return one of ``RANKED_BY``, in nats."""
        by_name = {
            "total": self.given.total,
            "per_token": self.given.per_token,
            "pmi": self.given.total - self.alone.total,
        }
        return by_name[name]


class Ranking(NamedTuple):
    """A model's scores on all items."""

    scores: list[Score]
    left_out: Counter[str]
    """Reason -> items, or comparisons of an item, that cannot be scored."""


def rank(
    prompts: Mapping[str, tuple[Message, ...]],
    drawn: Mapping[str, Sequence[str]],
    responses: Mapping[str, str],
    scorer: Scorer,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Ranking:
    """Rank each item's own response among the drawn ones, and measure where the model would stop.

    Beside the metrics of ``ranked``, each item has ``log_p_per_token`` and
    ``log_p_per_token_alone``, in nats; ``stop_at_end``, the probability of ending where the
    response ends; and ``stop_early``, the mean probability of ending at an earlier token.

    Args:
        prompts: The prompt of each item, by the item's name.
        drawn: The items whose responses are compared with each item's own: see ``pairing.draws``.
        responses: Each item's own response.
        scorer: Scores pairs with the model.
        on_progress: Called with (done, all) of the items.

    Raises:
        DataError: nothing can be scored.
    """
    names = [*prompts]
    ranking = Ranking([], Counter())
    alone: dict[str, Likelihood | Unscored] = {}
    chunks = [names[at : at + ITEMS_AT_ONCE] for at in range(0, len(names), ITEMS_AT_ONCE)]
    # p(y) of every response first: an item is compared with responses of later chunks too.
    for chunk in chunks:
        alone |= zip(chunk, scorer([Pair((), responses[name]) for name in chunk]), strict=True)
    words = shared_words(prompts, responses)
    done = 0
    for chunk in chunks:
        crossed = [(name, other) for name in chunk for other in (name, *drawn[name])]
        pairs = [Pair(prompts[name], responses[other]) for name, other in crossed]
        given = dict(zip(crossed, scorer(pairs), strict=True))
        for name in chunk:
            fits = {
                other: _fit(given[name, other], alone[other], words(name, other))
                for other in (name, *drawn[name])
            }
            ranking.scores.extend(_scores(name, fits, ranking.left_out))
        done += len(chunk)
        on_progress(done, len(names))
    if not any(score.metric == "ranked_pmi" for score in ranking.scores):
        reasons = [f"{count:,} {reason}" for reason, count in ranking.left_out.items()]
        raise DataError(f"no response can be ranked: {', '.join(reasons) or 'all of them tie'}")
    return ranking


def ranked(item_id: str, own: ResponseFit, others: Mapping[str, ResponseFit]) -> Iterator[Score]:
    """Yield the scores of one item: its rank by each measure, its ties and its ``pmi`` in nats.

    An item that ties with all others by a measure has no rank by it. In ``ranked_words`` a tie is
    half a win: without a shared word, words rank by chance.

    Args:
        item_id: The item.
        own: The fit of its own response.
        others: The fits of other items' responses to this item's instruction.
    """
    # Ties are left out of the rank and reported: as half wins, a model that gives every response
    # the same probability would score 50 %, like one that ranks by chance.
    tied = []
    for name in RANKED_BY:
        margins = {other: own.measure(name) - fit.measure(name) for other, fit in others.items()}
        ties = [other for other, margin in margins.items() if abs(margin) < TIE_NATS]
        tied += [f"{name}: {other}" for other in ties]
        wins = sum(margin >= TIE_NATS for margin in margins.values())
        decided = len(margins) - len(ties)
        if decided:
            yield _score(item_id, f"ranked_{name}", wins / decided, f"{wins} of {decided}")
    yield _score(item_id, "tied", len(tied) / (len(RANKED_BY) * len(others)), ", ".join(tied))
    yield _score(item_id, "pmi", own.measure("pmi"))
    by_words = [(fit.words < own.words) + (fit.words == own.words) / 2 for fit in others.values()]
    yield _score(item_id, "ranked_words", sum(by_words) / len(others))


def verdict(ranked_pmi_low: float, pmi_low: float, ranked_words: float) -> ProbeVerdict:
    """Return how far a model ties responses to their instructions.

    *strong*: its own responses win by pmi as often as by words in common, up to ``MARGIN``, and an
    instruction makes its response likelier; *weak*: they win more often than by chance; *none*: not
    even that. The lower ends of the model's intervals decide.
    """
    if ranked_pmi_low > max(CHANCE, ranked_words - MARGIN) and pmi_low > 0:
        return "strong"
    return "weak" if ranked_pmi_low > CHANCE else "none"


def _scores(
    name: str, fits: Mapping[str, ResponseFit | Unscored], left_out: Counter[str]
) -> Iterator[Score]:
    """Yield the scores of one item; ``left_out`` counts what cannot be scored."""
    own = fits[name]
    if isinstance(own, Unscored):
        left_out[f"items: {own.reason}"] += 1
        return
    # An item stays with fewer comparisons: only the share of wins counts.
    others = {
        other: fit for other, fit in fits.items() if other != name and isinstance(fit, ResponseFit)
    }
    if len(others) + 1 < len(fits):
        reason = "comparisons: the other response cannot be scored"
        left_out[reason] += len(fits) - len(others) - 1
    if not others:
        left_out["items: no other response can be scored"] += 1
        return
    yield from ranked(name, own, others)
    yield _score(name, "log_p_per_token", own.given.per_token)
    yield _score(name, "log_p_per_token_alone", own.alone.per_token)
    yield _score(name, "stop_at_end", math.exp(own.given.ending))
    yield _score(name, "stop_early", own.given.early)


def _fit(
    given: Likelihood | Unscored, alone: Likelihood | Unscored, words: float
) -> ResponseFit | Unscored:
    if isinstance(given, Unscored):
        return given
    return alone if isinstance(alone, Unscored) else ResponseFit(given, alone, words)


def _score(item_id: str, metric: str, value: float, explanation: str = "") -> Score:
    return Score(item_id=item_id, metric=metric, value=value, explanation=explanation)
