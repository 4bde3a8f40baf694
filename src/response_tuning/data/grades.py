"""Grades for a judge to learn: a model's own rating with the reference in view, and likeness to it.

Self-Judge (Ye and Ng, arXiv 2409.00935) combines both; how it combines them is not published. Here
each is replaced by its rank among the answers, so that neither scale wins, and the mean of both
ranks is cut into ten classes of equal size, 0 to 9.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from response_tuning.judging import DIGITS

Array = npt.NDArray[np.float64]


def similarities(responses: Sequence[str], references: Sequence[str]) -> Array:
    """Return (n,): the cosine of each response with its reference, as TF-IDF vectors of words.

    A text without a word of two characters or more has 0.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    try:
        vectors = TfidfVectorizer().fit_transform([*responses, *references])
    except ValueError:  # there is no word at all
        return np.zeros(len(responses))
    first, second = vectors[: len(responses)], vectors[len(responses) :]
    return np.asarray(first.multiply(second).sum(axis=1), dtype=np.float64).ravel()


def digits_of(*values: Sequence[float] | Array) -> list[int]:
    """Return the class, 0 to 9, of each answer by the mean rank of its ``values``.

    Equal answers share their rank, and so their class.
    """
    from scipy.stats import rankdata

    mean = np.mean([rankdata(one) for one in values], axis=0)
    ranks = rankdata(mean) - 0.5
    classes = np.floor(ranks * len(DIGITS) / len(ranks)).astype(int)
    found: list[int] = classes.tolist()
    return found
