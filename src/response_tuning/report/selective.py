"""Selective answering: what a model gets right if it declines where it is least sure.

Answers are sorted by their confidence, the surest first. At a coverage c, the model answers the
surest share c of the prompts; its risk is the share of wrong answers among these. The area under
this curve (AURC, Geifman, Uziel and El-Yaniv 2019, arXiv 1805.08206) is the mean risk over all
coverages. Random confidence gives the error rate; an oracle, which knows what is wrong, the least
area that is possible.
"""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from math import ceil, log
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from response_tuning.report.joined import BenchmarkScores
from response_tuning.report.variance import TINY, Array, Labels, variance

CONFIDENCE = "confidence"
RESAMPLES = 1000
RISKS = (0.01, 0.05, 0.1, 0.2)
"""Stated risks at which a threshold is sought."""
STARTS = (0.0, 0.25, 0.5, 0.75)
"""Coverages from which on a risk is tested. From the surest answers alone, one mistake among the
first would end the search, whatever comes behind it."""


class Selective(NamedTuple):
    """A line of ``selective.csv``: one variant on one benchmark, a mean over its seeds."""

    variant: str
    benchmark: str
    metric: str
    """What counts as right."""
    risk: float
    """Share of wrong answers if every prompt is answered: the AURC of random confidence."""
    aurc: float
    low: float
    high: float
    """Bounds of the interval of ``aurc``, over clusters of prompts."""
    oracle: float
    """AURC if every wrong answer were less sure than every right one."""
    n: int
    """Prompts with a confidence and a score."""
    seeds: int


class Abstention(NamedTuple):
    """A line of ``abstention.csv``: the confidence below which one model should decline."""

    variant: str
    seed: int
    benchmark: str
    metric: str
    stated_risk: float
    threshold: float | None
    """None if no share of the answers can be shown to keep the risk."""
    coverage: float
    """Share of the prompts that are answered at the threshold."""
    found_risk: float | None
    """Share of wrong answers among these."""


class Answers(NamedTuple):
    """The answers of one model that have a confidence and a score."""

    confidence: Array
    right: Array
    items: npt.NDArray[np.int_]
    """Place of each answer's prompt in the benchmark."""
    clusters: Labels
    """What each prompt asks about, numbered from 0: several may ask about one fact."""

    def design_effect(self) -> float:
        """Return how many answers count as one independent one (Kish 1965, section 8.2).

        The variance of the error rate over clusters of prompts, by that of as many independent
        answers; at least 1. If all answers are right, or none, each cluster counts once.
        """
        count, rate = len(self.right), float(self.right.mean())
        if rate in (0.0, 1.0):
            return count / (int(self.clusters.max()) + 1)
        found = variance((self.right - rate)[None] / count, self.clusters)
        return max(1.0, found.value / (rate * (1 - rate) / count))


def selective(
    benchmarks: Sequence[BenchmarkScores], level: float
) -> Iterator[tuple[Selective, dict[int, Answers]]]:
    """Yield the AURC of every benchmark, metric of right answers and variant.

    Behind it are the answers at each seed: every seed is a model of its own, with its own order of
    answers, and the AURC is the mean over them.
    """
    for benchmark in benchmarks:
        if CONFIDENCE not in benchmark.values:
            continue
        for metric in benchmark.accuracy:
            for variant in benchmark.variants:
                answers = _answers(benchmark, metric, variant)
                if answers:
                    yield _row(benchmark, metric, variant, answers, level), answers


def answers_of(
    confidence: Array, right: Array, clusters: npt.NDArray[np.str_], items: npt.NDArray[np.int_]
) -> Answers:
    """Return answers with their clusters by number."""
    return Answers(confidence, right, items, np.unique(clusters, return_inverse=True)[1])


def risks(answers: Answers) -> Array:
    """Return the risk at each coverage 1/n, 2/n, ... 1.

    Answers of equal confidence share their mean: no order among them is used.
    """
    order = np.argsort(-answers.confidence, kind="stable")
    sure, wrong = answers.confidence[order], 1.0 - answers.right[order]
    _, first, number = np.unique(-sure, return_index=True, return_counts=True)
    means = np.add.reduceat(wrong, first) / number
    counts = np.arange(1, len(wrong) + 1)
    curve: Array = np.cumsum(np.repeat(means, number)) / counts
    return curve


def aurc(answers: Answers) -> float:
    """Return the mean risk over all coverages."""
    return float(risks(answers).mean())


def threshold(answers: Answers, risk: float, level: float = 0.95) -> tuple[float, float] | None:
    """Return (threshold, coverage): who declines below it keeps the risk under ``risk``.

    From each of ``STARTS`` on, a binomial test asks at each coverage whether the risk is under
    ``risk``; the last coverage before the first failure counts, and of several the largest. Answers
    count by the design effect of their clusters. Each start has an equal part of 1 - ``level``. A
    fixed order needs no further correction (multi-start fixed-sequence testing, Angelopoulos et al.
    2021, arXiv 2110.01052), so the promise holds with probability ``level`` for prompts like these.
    None: not for any share.
    """
    order = np.argsort(-answers.confidence, kind="stable")
    sure, wrong = answers.confidence[order], np.cumsum(1.0 - answers.right[order])
    doubt, effect = (1 - level) / len(STARTS), answers.design_effect()
    shown = _doubts(wrong / effect, np.arange(1, len(sure) + 1) / effect, risk) <= doubt
    # A threshold cannot part answers of equal confidence.
    testable = np.flatnonzero(np.append(sure[1:] != sure[:-1], True)) + 1
    # Before so many answers, even none wrong shows nothing.
    least = ceil(effect * log(doubt) / log(1 - risk))
    last = 0
    for share in STARTS:
        counts = testable[testable >= max(least, ceil(share * len(sure)))]
        last = max([last, *takewhile(lambda count: shown[count - 1], counts.tolist())])
    return (float(sure[last - 1]), last / len(sure)) if last else None


def _doubts(wrong: Array, counts: Array, risk: float) -> Array:
    """Return P(at most ``wrong`` of ``counts`` | ``risk``), the binomial tail for any real numbers.

    By the incomplete beta function, which equals the sum at whole numbers (DLMF 8.17.5).
    """
    from scipy.special import betainc

    right = counts - wrong
    tail: Array = np.where(right > 0, betainc(np.maximum(right, TINY), wrong + 1, 1 - risk), 1.0)
    return tail


def abstentions(row: Selective, models: dict[int, Answers], level: float) -> Iterator[Abstention]:
    """Yield the threshold of each seed's model for each of ``RISKS``."""
    for seed, answers in models.items():
        for stated in RISKS:
            chosen = threshold(answers, stated, level)
            found = None
            if chosen is not None:
                kept = answers.confidence >= chosen[0]
                found = float(1 - answers.right[kept].mean())
            at, coverage = chosen or (None, 0.0)
            names = (row.variant, seed, row.benchmark, row.metric)
            yield Abstention(*names, stated, at, coverage, found)


def _answers(benchmark: BenchmarkScores, metric: str, variant: str) -> dict[int, Answers]:
    sure, right = benchmark.of(CONFIDENCE, variant), benchmark.of(metric, variant)
    known = np.isfinite(sure) & np.isfinite(right)
    of_item = np.array(benchmark.clusters)
    found = {}
    for place, seed in enumerate(benchmark.seeds):
        items = np.flatnonzero(known[place])
        if len(items):
            found[seed] = answers_of(sure[place][items], right[place][items], of_item[items], items)
    return found


def _row(
    benchmark: BenchmarkScores,
    metric: str,
    variant: str,
    models: dict[int, Answers],
    level: float,
) -> Selective:
    each = [*models.values()]
    low, high = _interval(each, benchmark.clusters, level)
    return Selective(
        variant,
        benchmark.name,
        metric,
        risk=float(np.mean([1 - one.right.mean() for one in each])),
        aurc=_mean_aurc(each),
        low=low,
        high=high,
        oracle=_mean_aurc([one._replace(confidence=one.right) for one in each]),
        n=len({*np.concatenate([one.items for one in each]).tolist()}),
        seeds=len(each),
    )


def _mean_aurc(models: Sequence[Answers]) -> float:
    return float(np.mean([aurc(one) for one in models]))


def _interval(
    models: Sequence[Answers], clusters: Sequence[str], level: float
) -> tuple[float, float]:
    """Return a percentile bootstrap over clusters of prompts, with all seeds of a prompt."""
    _, of_item = np.unique(clusters, return_inverse=True)
    members = [
        [np.flatnonzero(of_item[one.items] == number) for number in range(of_item.max() + 1)]
        for one in models
    ]
    draw = np.random.default_rng(0)
    values = []
    for _ in range(RESAMPLES):
        drawn = draw.integers(of_item.max() + 1, size=of_item.max() + 1)
        parts = []
        for one, of_cluster in zip(models, members, strict=True):
            chosen = np.concatenate([of_cluster[number] for number in drawn])
            if len(chosen):
                parts.append(Answers(*(column[chosen] for column in one)))
        if parts:
            values.append(_mean_aurc(parts))
    tail = 50 * (1 - level)
    low, high = np.percentile(values, [tail, 100 - tail])
    return float(low), float(high)
