from collections.abc import Sequence
from math import isclose
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from response_tuning.report.joined import BenchmarkScores
from response_tuning.report.selective import (
    Answers,
    abstentions,
    aurc,
    risks,
    selective,
    threshold,
)

Numbers = Sequence[float] | npt.NDArray[Any]


def answers(confidence: Numbers, right: Numbers, clusters: Numbers | None = None) -> Answers:
    every = np.arange(len(right))
    of_item = every if clusters is None else np.array(clusters)
    return Answers(np.array(confidence), np.array(right, float), every, of_item)


def scores(confidence: list[list[float]], right: list[list[float]]) -> BenchmarkScores:
    n = len(right[0])
    return BenchmarkScores(
        name="b",
        variants=("v",),
        seeds=tuple(range(len(right))),
        items=tuple(f"i{place}" for place in range(n)),
        groups=("",) * n,
        clusters=tuple(f"i{place}" for place in range(n)),
        values={"confidence": np.array([confidence]), "correct": np.array([right])},
    )


def test_the_curve_is_the_share_of_wrong_answers_among_the_surest() -> None:
    curve = risks(answers([-3.0, -1.0, -2.0], [0, 1, 0]))
    assert curve.tolist() == pytest.approx([0, 1 / 2, 2 / 3])
    assert aurc(answers([-3.0, -1.0, -2.0], [0, 1, 0])) == pytest.approx((0 + 1 / 2 + 2 / 3) / 3)


def test_answers_that_are_equally_sure_have_no_order() -> None:
    for right in ([0, 1, 1, 1], [1, 1, 1, 0]):
        assert risks(answers([-1.0] * 4, right)).tolist() == pytest.approx([1 / 4] * 4)


def test_no_order_reaches_less_than_the_oracle_or_more_than_its_reverse() -> None:
    draw = np.random.default_rng(1)
    right = draw.integers(2, size=50).astype(float)
    oracle, worst = aurc(answers(right, right)), aurc(answers(-right, right))
    for _ in range(20):
        found = aurc(answers(draw.normal(size=50), right))
        assert oracle <= found <= worst


def test_a_threshold_keeps_its_risk_in_at_least_the_stated_share_of_draws() -> None:
    """Confidence is the probability of being right, so the true risk of a threshold is known."""
    draw = np.random.default_rng(2)
    broken = 0
    for _ in range(200):
        sure = draw.uniform(0.5, 1, size=300)
        right = (draw.uniform(size=300) < sure).astype(float)
        found = threshold(answers(sure, right), 0.2)
        if found is not None:
            broken += (1 - (found[0] + 1) / 2) > 0.2  # mean of 1 - p over [threshold, 1]
    assert broken <= 0.05 * 200 + 2 * np.sqrt(0.05 * 0.95 * 200)


def test_a_risk_that_cannot_be_shown_has_no_threshold() -> None:
    assert threshold(answers([-1.0] * 10, [1] * 10), 0.1) is None  # 42 without a mistake would do
    sure = [-place / 100 for place in range(60)]
    found = threshold(answers(sure, [1] * 50 + [0] * 10), 0.1)
    assert found is not None and found[0] <= sure[41] and isclose(found[1], 51 / 60, abs_tol=0.1)
    assert threshold(answers(sure, [0] * 60), 0.1) is None


def test_one_mistake_among_the_surest_answers_does_not_end_the_search() -> None:
    sure = [-place / 1000 for place in range(200)]
    assert threshold(answers(sure, [0] + [1] * 199), 0.05) == (sure[199], 1.0)


def test_a_threshold_keeps_its_risk_where_several_prompts_ask_about_one_fact() -> None:
    """All five answers about a fact are right, or none is, so 60 facts are all there is to see."""
    draw = np.random.default_rng(3)
    broken = 0
    for _ in range(200):
        of_fact = draw.uniform(0.5, 1, size=60)
        right = np.repeat(draw.uniform(size=60) < of_fact, 5).astype(float)
        found = threshold(answers(np.repeat(of_fact, 5), right, np.repeat(range(60), 5)), 0.2)
        if found is not None:
            broken += (1 - (found[0] + 1) / 2) > 0.2
    assert broken <= 0.05 * 200 + 2 * np.sqrt(0.05 * 0.95 * 200)


def test_answers_count_by_how_much_those_about_one_fact_agree() -> None:
    pairs = [0, 0, 1, 1, 2, 2, 3, 3]
    agreeing = answers([0.0] * 8, [1, 1, 0, 0, 1, 1, 0, 0], pairs)
    assert agreeing.design_effect() == pytest.approx(2 * 4 / 3)  # two a fact, and 3 of 4 degrees
    assert answers([0.0] * 8, [1, 0, 1, 0, 1, 0, 1, 0], pairs).design_effect() == 1
    assert answers([0.0] * 8, [1] * 8, pairs).design_effect() == 2


def test_every_seed_is_a_model_of_its_own() -> None:
    # Each seed is perfectly ordered; together they would not be, as their scales differ.
    benchmark = scores([[0.0, -1.0], [-10.0, -11.0]], [[1, 0], [1, 0]])
    ((row, models),) = selective([benchmark], 0.95)
    assert (row.aurc, row.oracle, row.risk) == (0.25, 0.25, 0.5)
    assert (row.n, row.seeds) == (2, 2)
    assert row.low <= row.aurc <= row.high
    lines = list(abstentions(row, models, 0.95))
    assert {one.seed for one in lines} == {0, 1}
    assert all(one.threshold is None and one.coverage == 0 for one in lines)


def test_answers_without_a_confidence_are_no_part_of_it() -> None:
    nan = float("nan")
    ((row, _),) = selective([scores([[0.0, nan, -1.0]], [[1, 1, 0]])], 0.95)
    assert row.n == 2
    without = scores([[nan, nan]], [[1, 0]])
    assert list(selective([without], 0.95)) == []
