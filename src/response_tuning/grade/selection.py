"""Choosing among answers by a score: how well it ranks them, and what the best of N is worth.

The best of N is always shown beside two bounds: the oracle, which knows which answers are good,
and a random choice. Answers of equal score share the place: no order among them is used.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
RESAMPLES = 1000
LEVEL = 0.95


class Scored(NamedTuple):
    """Answers to questions; all arrays have shape (answers,)."""

    questions: npt.NDArray[np.int_]
    """The question of each answer, as a number."""
    scores: Array
    good: Array
    """How good each answer is, from 0 to 1."""


class Estimate(NamedTuple):
    """A number with the bounds of its interval, over questions."""

    value: float
    low: float
    high: float


def auroc(answers: Scored) -> float:
    """Return the probability that a good answer has a higher score than another; a tie is half.

    Over all pairs of any questions. ``nan`` if all answers are good, or none is.
    """
    from scipy.stats import rankdata

    good = answers.good >= 0.5
    number, others = int(good.sum()), int((~good).sum())
    if not number or not others:
        return float("nan")
    ranks = rankdata(answers.scores)[good].sum()
    return float((ranks - number * (number + 1) / 2) / (number * others))


def best_of(answers: Scored) -> float:
    """Return how good the answer with the highest score is, as a mean over questions."""
    return _chosen(answers, answers.scores)


def oracle(answers: Scored) -> float:
    """Return how good the best answer is, as a mean over questions."""
    return _chosen(answers, answers.good)


def at_random(answers: Scored) -> float:
    """Return how good a random answer is, as a mean over questions."""
    return _chosen(answers, np.zeros(len(answers.scores)))


def estimate(answers: Scored, statistic: Callable[[Scored], float]) -> Estimate:
    """Return a statistic with a percentile bootstrap over questions."""
    _, of_answer = np.unique(answers.questions, return_inverse=True)
    count = int(of_answer.max()) + 1
    members = [np.flatnonzero(of_answer == number) for number in range(count)]
    draw = np.random.default_rng(0)
    values = []
    for _ in range(RESAMPLES):
        drawn = draw.integers(count, size=count)
        rows = np.concatenate([members[number] for number in drawn])
        # A question that is drawn twice counts as two.
        names = np.repeat(np.arange(count), [len(members[number]) for number in drawn])
        values.append(statistic(Scored(names, answers.scores[rows], answers.good[rows])))
    known = np.array(values)[~np.isnan(values)]
    value = statistic(answers)
    if not len(known):
        return Estimate(value, value, value)
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(known, [tail, 100 - tail])
    return Estimate(value, float(low), float(high))


def _chosen(answers: Scored, by: Sequence[float] | Array) -> float:
    """Return the mean, over questions, of the mean goodness of the answers with the highest."""
    by = np.asarray(by, dtype=float)
    _, of_answer = np.unique(answers.questions, return_inverse=True)
    highest = np.full(int(of_answer.max()) + 1, -np.inf)
    np.maximum.at(highest, of_answer, by)
    first = by == highest[of_answer]
    number = np.bincount(of_answer, weights=first)
    return float((np.bincount(of_answer, weights=answers.good * first) / number).mean())
