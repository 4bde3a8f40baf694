"""Response ranking: does a model find an instruction's own response likelier than others?

After Hewitt et al. 2024 (2409.14254, section 4.2): the response y of an instruction x wins against
another desirable response y' where p(y | x) > p(y' | x).

Three measures are ranked by: the *total* log p(y | x) (their equation 3), its mean *per token* (as
their code does) and *pmi*, log p(y | x) - log p(y), which is free of how likely the response is by
itself. A metric's value is an item's share of wins among its wins and losses. Measures that are
nearer than ``TIE`` tie: that is neither a win nor a loss, but counted under ``tied`` and named.

Responses share words with their instructions, and counting these ranks nine in ten right. So the
same draws are also ranked by *words*, without any model: what a model has to be held against.
"""

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from response_tuning.artifacts import Message, Score
from response_tuning.errors import DataError
from response_tuning.likelihoods import Likelihood, Pair, Unscored

MEASURES = ("total", "per_token", "pmi")
TIE = 1e-4
"""Nats. Rounding in float32 is below it."""
CHANCE = 0.5
MARGIN = 0.05
"""How far a model may stay below the ranking by words and still be called strong."""
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
    words: float
    """Share of the response's words that stand in the instruction; see ``shared_words``."""

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
    words = shared_words(prompts, responses)
    done = 0
    for chunk in chunks:
        both = [(name, other) for name in chunk for other in (name, *drawn[name])]
        asked = [Pair(prompts[name], responses[other]) for name, other in both]
        given = dict(zip(both, likelihoods(asked), strict=True))
        for name in chunk:
            fits = {
                other: _fit(given[name, other], alone[other], words(name, other))
                for other in (name, *drawn[name])
            }
            found.scores.extend(_scores(name, fits, found.left_out))
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


def shared_words(
    prompts: Mapping[str, tuple[Message, ...]], responses: Mapping[str, str]
) -> Callable[[str, str], float]:
    """Return what says which share of an item's response stands in an item's prompt.

    That is, of its distinct words, each weighted by how rare it is among the responses: by
    log(responses / responses that have it).
    """
    asked = {item: _words(" ".join(m.content for m in said)) for item, said in prompts.items()}
    said = {item: _words(response) for item, response in responses.items()}
    having = Counter(word for words in said.values() for word in words)
    rarity = {word: math.log(len(said) / count) for word, count in having.items()}

    def share(item: str, other: str) -> float:
        whole = sum(rarity[word] for word in sorted(said[other]))
        shared = sum(rarity[word] for word in sorted(said[other] & asked[item]))
        return shared / whole if whole else 0.0

    return share


def ranked(item_id: str, own: Fit, others: Mapping[str, Fit]) -> Iterator[Score]:
    """Yield the scores of one item: its rank by each measure, its ties and its ``pmi`` in nats.

    An item that ties with all others by a measure has no rank by it. In ``ranked_words`` a tie is
    half a win: where no word is shared, words rank by chance.

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
    by_words = [(fit.words < own.words) + (fit.words == own.words) / 2 for fit in others.values()]
    yield _score(item_id, "ranked_words", sum(by_words) / len(others))


def verdict(ranked_pmi_low: float, pmi_low: float, ranked_words: float) -> Verdict:
    """Say how far a model ties responses to their instructions.

    *strong*: its own responses win by pmi as often as by words in common, up to ``MARGIN``, and an
    instruction makes its response likelier; *weak*: they win more often than by chance; *none*: not
    even that. What counts of the model is the lower end of the intervals.
    """
    if ranked_pmi_low > max(CHANCE, ranked_words - MARGIN) and pmi_low > 0:
        return "strong"
    return "weak" if ranked_pmi_low > CHANCE else "none"


def _scores(
    name: str, fits: Mapping[str, Fit | Unscored], left_out: Counter[str]
) -> Iterator[Score]:
    """Yield the scores of one item; what cannot be scored is counted in ``left_out``."""
    own = fits[name]
    if isinstance(own, Unscored):
        left_out[f"items: {own.reason}"] += 1
        return
    others = {other: fit for other, fit in fits.items() if other != name and isinstance(fit, Fit)}
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
) -> Fit | Unscored:
    if isinstance(given, Unscored):
        return given
    return alone if isinstance(alone, Unscored) else Fit(given, alone, words)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def _score(item_id: str, metric: str, value: float, explanation: str = "") -> Score:
    return Score(item_id=item_id, metric=metric, value=value, explanation=explanation)
