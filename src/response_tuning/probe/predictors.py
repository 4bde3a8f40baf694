"""What may tell, before any tuning, what response tuning will bring on a base: fourteen predictors.

x is an instruction, y its own response, y' another item's, T the template's prefix without an
instruction. Logarithms are natural; log p is of the whole response, without its end, unless it says
"per token". Predictors of generated answers are computed in ``workflows/predictors.py``, those that
need logits in ``positions.py``, and those of a short training run in ``short_run.py``.
"""

import math
import random
from collections.abc import Mapping, Sequence
from statistics import fmean
from types import MappingProxyType
from typing import NamedTuple

from response_tuning.artifacts import Message
from response_tuning.errors import DataError
from response_tuning.likelihoods import Likelihood, Pair, Unscored
from response_tuning.pairing import shared_words
from response_tuning.probe.ranking import ResponseFit, Scorer, ranked

PREDICTORS: Mapping[str, str] = MappingProxyType(
    {
        "response_ranking": "share of others y' with log p(y | x) > log p(y' | x)",
        "gain_over_words": "share with g(x, y) > g(x, y'), minus the share that words in common "
        "rank so; g = log p(y | x) - log p(y | T)",
        "ifd": "share of items with ppl(y | x) < ppl(y | T), per token",
        "task_specificity": "log p(y | x) - log of the mean of p(y | x') over x' and x",
        "discrimination": "share of spoilt responses d with p(y, end | x) > p(d, end | x)",
        "willingness": "share of greedy continuations whose first line answers",
        "latent_ability": "share of questions that one of k samples answers in its first line",
        "in_context_gain": "strict with responses alone in front (URIAL-R) minus strict",
        "rule_gain": "strict with the rule adapter minus strict",
        "token_rank": "share of y's tokens that are the base's first choice given x",
        "stop_gap": "-log p(end | x, y), in nats",
        "learnability": "share of the loss of responses that a few steps of tuning remove",
        "data_law": "loss per token after all responses, extrapolated from short runs",
        "h_score": "H-score of the state before y for y's first token, shrunk",
    }
)
"""Name -> formula. Sources: Hewitt et al. 2024 (2409.14254) for response_ranking and rule_gain;
IFD: 2308.12032; task_specificity: 2602.03103; discrimination after RuDE (2605.11978), with rules
instead of a rewriting model; in_context_gain and token_rank: URIAL (2312.01552); learnability:
LoBaSS (2310.13008); data_law: 2402.02314; h_score: Bao et al. 2019, shrunk as in Ibrahim et al.
2021; the others are ours. H-score is for classification, and the literature advises against it."""
DETAILS: Mapping[str, str] = MappingProxyType(
    {
        "discrimination_letter": "share of spoilt responses that lose as letter A or B",
        "token_rank_3": "share of y's tokens among the base's first three given x",
        "stop_auc": "AUC of log p(end) at the end of y against inside y",
        "ranking_by_gain": "share with g(x, y) > g(x, y')",
    }
)
"""Second readings of some predictors; they are recorded, and not fitted."""
BASELINES: Mapping[str, str] = MappingProxyType(
    {
        "perplexity": "log of the perplexity of y given T, per token",
        "word_overlap": "share of others that words in common rank below y, without a model",
        "log_parameters": "log of the number of parameters",
    }
)
SPOILINGS = ("truncated", "off-topic", "shouted", "unended")
"""How a response is spoilt: its first half, another item's, in capitals, and run on into
another."""
LETTERS = ("A", "B")


class Crossed(NamedTuple):
    """Likelihoods of the items' responses."""

    given: Mapping[tuple[str, str], Likelihood]
    """(item of the instruction, item of the response) -> log p(y' | x)."""
    alone: Mapping[str, Likelihood]
    """Item -> log p(y | T)."""
    unscored: int
    """Items that cannot be scored."""


def crossed(
    prompts: Mapping[str, tuple[Message, ...]],
    responses: Mapping[str, str],
    drawn: Mapping[str, Sequence[str]],
    scorer: Scorer,
) -> Crossed:
    """Score each response alone, under its own instruction and under those that drew it.

    Raises:
        DataError: fewer than two items can be scored.
    """
    names = [*prompts]
    alone = dict(zip(names, scorer([Pair((), responses[name]) for name in names]), strict=True))
    places = [(name, other) for name in names for other in (name, *drawn[name])]
    found = scorer([Pair(prompts[name], responses[other]) for name, other in places])
    given = dict(zip(places, found, strict=True))
    kept = {
        name
        for name in names
        if isinstance(alone[name], Likelihood) and isinstance(given[name, name], Likelihood)
    }
    if len(kept) < 2:
        reasons = {one.reason for one in given.values() if isinstance(one, Unscored)}
        raise DataError(
            f"{len(kept)} of {len(names)} responses can be scored, and a prediction needs two: "
            f"{'; '.join(sorted(reasons))}"
        )
    scored = {
        pair: one for pair, one in given.items() if isinstance(one, Likelihood) and kept >= {*pair}
    }
    of_kept = {name: one for name, one in alone.items() if isinstance(one, Likelihood)}
    return Crossed(scored, {name: of_kept[name] for name in kept}, len(names) - len(kept))


def from_likelihoods(
    prompts: Mapping[str, tuple[Message, ...]], responses: Mapping[str, str], both: Crossed
) -> dict[str, float]:
    """Return the predictors and baselines that likelihoods of whole responses give."""
    words = shared_words(prompts, responses)
    by_metric: dict[str, list[float]] = {}
    for name in both.alone:
        fits = {
            other: ResponseFit(given, both.alone[other], words(name, other))
            for (item, other), given in both.given.items()
            if item == name
        }
        own = fits.pop(name)
        for score in ranked(name, own, fits) if fits else ():
            by_metric.setdefault(score.metric, []).append(score.value)
    mean = {metric: fmean(values) for metric, values in by_metric.items()}
    own_fits = [(both.given[name, name], alone) for name, alone in both.alone.items()]
    by_gain, by_words = mean.get("ranked_pmi", math.nan), mean.get("ranked_words", math.nan)
    return {
        "response_ranking": mean.get("ranked_total", math.nan),
        "gain_over_words": by_gain - by_words,
        "ranking_by_gain": by_gain,
        "word_overlap": by_words,
        "ifd": fmean(given.per_token > alone.per_token for given, alone in own_fits),
        "task_specificity": fmean(_specificity(name, both) for name in both.alone),
        "stop_gap": -fmean(given.ending for given, _ in own_fits),
        "perplexity": -fmean(alone.per_token for _, alone in own_fits),
    }


def _specificity(name: str, both: Crossed) -> float:
    """Return log p(y | x) - log mean p(y | x') over the instructions that y was scored under."""
    under = [given.total for (_, other), given in both.given.items() if other == name]
    highest = max(under)
    mean = highest + math.log(fmean(math.exp(total - highest) for total in under))
    return both.given[name, name].total - mean


def spoilt(response: str, other: str) -> dict[str, str]:
    """Return a response in the four ways of ``SPOILINGS``; ``other`` is another item's response.

    A way that leaves the response as it is, such as capitals in capitals, is left out.
    """
    words = response.split()
    ways = (
        " ".join(words[: max(1, len(words) // 2)]),
        other,
        response.upper(),
        f"{response} {other}",
    )
    return {name: way for name, way in zip(SPOILINGS, ways, strict=True) if way != response}


def discrimination(
    prompts: Mapping[str, tuple[Message, ...]],
    responses: Mapping[str, str],
    drawn: Mapping[str, Sequence[str]],
    scorer: Scorer,
) -> dict[str, float]:
    """Return how often a response beats its spoilt forms, as a text with its end and as a letter.

    Each way of spoiling counts the same. As a letter, one spoilt form of each item is shown beside
    the response; which of them is A alternates.
    """
    ways = {name: spoilt(responses[name], responses[drawn[name][0]]) for name in prompts}
    pairs = {(name, ""): Pair(prompts[name], responses[name]) for name in prompts}
    for name, forms in ways.items():
        pairs |= {(name, way): Pair(prompts[name], text) for way, text in forms.items()}
    scored = dict(zip(pairs, scorer([*pairs.values()]), strict=True))
    wins: dict[str, list[bool]] = {}
    for (name, way), one in scored.items():
        own = scored[name, ""]
        if way and isinstance(one, Likelihood) and isinstance(own, Likelihood):
            wins.setdefault(way, []).append(own.total + own.ending > one.total + one.ending)
    return {
        "discrimination": fmean(map(fmean, wins.values())) if wins else math.nan,
        "discrimination_letter": _by_letter(prompts, responses, ways, scorer),
    }


def _by_letter(
    prompts: Mapping[str, tuple[Message, ...]],
    responses: Mapping[str, str],
    ways: Mapping[str, Mapping[str, str]],
    scorer: Scorer,
) -> float:
    asked: list[Pair] = []
    right: list[int] = []
    for number, (name, forms) in enumerate(ways.items()):
        way = [*forms][number % len(forms)]
        first = random.Random(f"letter {name}").randrange(2)
        shown = [responses[name], forms[way]]
        options = shown if first == 0 else shown[::-1]
        listed = "\n".join(
            f"{letter}: {text}" for letter, text in zip(LETTERS, options, strict=True)
        )
        last = prompts[name][-1]
        content = f"{last.content}\n\n{listed}\n\nWhich is better, A or B?"
        prompt = (*prompts[name][:-1], Message(role=last.role, content=content))
        asked += [Pair(prompt, letter) for letter in LETTERS]
        right.append(first)
    found = scorer(asked)
    both = zip(found[::2], found[1::2], right, strict=True)
    wins = [
        (a.total > b.total) == (own == 0)
        for a, b, own in both
        if isinstance(a, Likelihood) and isinstance(b, Likelihood)
    ]
    return fmean(wins) if wins else math.nan
