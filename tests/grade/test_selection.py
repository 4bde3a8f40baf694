import math

import numpy as np
import pytest

from response_tuning.grade.selection import (
    Scored,
    area,
    at_random,
    auroc,
    best_of,
    mean,
    oracle,
)


def answers(questions: list[int], scores: list[float], good: list[float]) -> Scored:
    return Scored(np.array(questions), np.array(scores, dtype=float), np.array(good, dtype=float))


TWO = answers([0, 0, 0, 1, 1, 1], [3, 2, 1, 5, 6, 4], [1, 0, 0, 1, 0, 0])


def test_auroc_counts_pairs_of_a_good_and_another_answer_and_a_tie_is_half() -> None:
    assert auroc(TWO) == pytest.approx((2 + 3) / 8)  # 3 is above 2 and 1; 5 above 2, 1 and 4
    assert auroc(answers([0, 0], [1, 1], [1, 0])) == 0.5
    assert auroc(answers([0, 0], [2, 1], [1, 0])) == 1.0
    assert auroc(answers([0, 0], [1, 2], [1, 0])) == 0.0


def test_auroc_is_unknown_where_all_answers_are_alike() -> None:
    assert math.isnan(auroc(answers([0, 1], [1, 2], [1, 1])))


def test_the_best_of_each_question_lies_between_chance_and_the_oracle() -> None:
    assert best_of(TWO).tolist() == [1, 0]
    assert oracle(TWO).tolist() == [1, 1]
    assert at_random(TWO).tolist() == pytest.approx([1 / 3, 1 / 3])


def test_answers_that_share_the_highest_score_share_the_place() -> None:
    assert best_of(answers([0, 0, 0], [2, 2, 1], [1, 0, 0])) == 0.5
    assert best_of(answers([0, 0], [1, 1], [1, 1])) == 1.0


def test_questions_count_once_however_many_answers_they_have() -> None:
    assert mean(at_random(answers([0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1]))).value == 0.5


def test_an_interval_covers_the_value_and_narrows_with_more_questions() -> None:
    draw = np.random.default_rng(1)

    def of(count: int) -> Scored:
        good = np.asarray(draw.random(2 * count) < 0.5, dtype=np.float64)
        noisy = good + draw.normal(size=2 * count)
        return Scored(np.repeat(np.arange(count), 2), noisy, good)

    few, many = (area(of(count)) for count in (20, 200))
    for found in (few, many):
        assert found.low < found.value < found.high
    assert many.high - many.low < few.high - few.low
    assert many.low > 0.5  # the score is the truth with noise of one standard deviation
