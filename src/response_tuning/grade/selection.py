"""Choosing among answers by a score: how well it ranks them, and what the best of N is worth.

The best of N is always shown beside two bounds: the oracle, which knows which answers are good,
and a random choice. Answers of equal score share the place: no order among them is used.
"""

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


def best_of(answers: Scored) -> Array:
    """Return (questions,): how good the answer with the highest score is."""
    return _chosen(answers, answers.scores)


def oracle(answers: Scored) -> Array:
    """Return (questions,): how good the best answer is."""
    return _chosen(answers, answers.good)


def at_random(answers: Scored) -> Array:
    """Return (questions,): how good a random answer is."""
    return _chosen(answers, np.zeros(len(answers.scores)))


def mean(of_questions: Array) -> Estimate:
    """Return the mean over questions, with a percentile bootstrap over them."""
    count = len(of_questions)
    drawn = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    return _estimate(float(of_questions.mean()), of_questions[drawn].mean(axis=1))


def area(answers: Scored) -> Estimate:
    """Return ``auroc`` with a percentile bootstrap over questions."""
    _, of_answer = np.unique(answers.questions, return_inverse=True)
    count = int(of_answer.max()) + 1
    members = [np.flatnonzero(of_answer == number) for number in range(count)]
    draw = np.random.default_rng(0)
    values = []
    for _ in range(RESAMPLES):
        rows = np.concatenate([members[number] for number in draw.integers(count, size=count)])
        values.append(auroc(Scored(of_answer, answers.scores[rows], answers.good[rows])))
    return _estimate(auroc(answers), np.array(values))


def _estimate(value: float, resampled: Array) -> Estimate:
    known = resampled[~np.isnan(resampled)]
    if not len(known):
        return Estimate(value, value, value)
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(known, [tail, 100 - tail])
    return Estimate(value, float(low), float(high))


def _chosen(answers: Scored, by: Array) -> Array:
    """Return (questions,): the mean goodness of the answers with the highest value of ``by``."""
    _, of_answer = np.unique(answers.questions, return_inverse=True)
    highest = np.full(int(of_answer.max()) + 1, -np.inf)
    np.maximum.at(highest, of_answer, by)
    first = by == highest[of_answer]
    number = np.bincount(of_answer, weights=first)
    found: Array = np.bincount(of_answer, weights=answers.good * first) / number
    return found
