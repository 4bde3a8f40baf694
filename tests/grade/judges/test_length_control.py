from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from response_tuning.grade.judges.alpaca_eval_files import read_annotations
from response_tuning.grade.judges.length_control import (
    Comparisons,
    Floats,
    LengthModel,
    fit,
    interval,
)

PUBLISHED = {  # model -> length-controlled win rates of AlpacaEval 1 and 2, from the leaderboards
    "alpaca-farm-ppo-human": (0.29782, 0.06419),
    "phi-2-sft": (0.44739, 0.05854),
    "minichat-3b": (0.31964, 0.05729),
    "falcon-7b-instruct": (0.39142, 0.04037),
}


def simulated(n: int, identity: float, length: float, difficulty: float, seed: int = 0) -> Any:
    """Comparisons whose preferences are drawn from the model with these coefficients."""
    rng = np.random.default_rng(seed)
    gamma, gap = rng.normal(size=n), np.round(rng.normal(300, 700, size=n))
    z = identity + length * np.tanh(gap / gap.std(ddof=1)) + difficulty * gamma
    return Comparisons((rng.random(n) < expit(z)).astype(float), gap, gamma)


def without_difficulty(preference: Floats, difference: Floats) -> Comparisons:
    return Comparisons(preference, difference, np.zeros(len(preference)))


def swapped(data: Comparisons) -> Comparisons:
    return Comparisons(1 - data.preference, -data.difference, data.difficulty)


def test_two_models_with_the_same_answers_each_win_half_the_time() -> None:
    data = without_difficulty(np.full(40, 0.5), np.zeros(40))
    assert fit(data).rate == 0.5
    assert interval(data, resamples=20) == (0.5, 0.5)


@pytest.mark.parametrize("weighted", [False, True])
def test_swapping_the_two_sides_gives_the_rest_of_the_rate(weighted: bool) -> None:
    data = simulated(300, 0.6, 1.5, -0.8)
    if weighted:
        data = data._replace(preference=np.random.default_rng(1).random(300))
    one, other = fit(data), fit(swapped(data))
    assert other.rate == pytest.approx(1 - one.rate, abs=1e-9)
    assert other[:3] == pytest.approx((-one.identity, one.length, -one.difficulty), abs=1e-7)
    low, high = interval(data, resamples=20)
    assert interval(swapped(data), resamples=20) == pytest.approx((1 - high, 1 - low), abs=1e-7)


@pytest.mark.parametrize("gap", [0.0, 25.0])
def test_where_no_length_tells_anything_the_rate_is_the_mean_preference(gap: float) -> None:
    data = simulated(200, 0.3, 0, 0.9)._replace(difference=np.full(200, gap))
    assert fit(data).rate == pytest.approx(data.preference.mean(), abs=1e-8)
    assert fit(data).length == 0


def test_planted_coefficients_are_recovered() -> None:
    data = simulated(40_000, 0.4, 1.2, -0.7)
    found = fit(data)
    assert found[:3] == pytest.approx((0.4, 1.2, -0.7), abs=0.05)
    assert found.rate == pytest.approx(expit(0.4 - 0.7 * data.difficulty).mean(), abs=0.01)
    assert data.preference.mean() > found.rate + 0.05, "its answers are longer, and length pays"


def test_the_coefficients_are_those_of_a_library_for_logistic_regression() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    data = simulated(400, 0.6, 1.5, -0.8)._replace(preference=np.random.default_rng(2).random(400))
    term = np.tanh(data.difference / data.difference.std(ddof=1))
    features = np.column_stack([term, data.difficulty])
    twice, p = np.vstack([features, features]), data.preference
    # A preference p is a win of weight p and a loss of weight 1 - p.
    known = linear.LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(
        twice, np.repeat([1, 0], 400), sample_weight=np.concatenate([p, 1 - p])
    )
    expected = (known.intercept_[0], *known.coef_[0])
    assert fit(data)[:3] == pytest.approx(expected, abs=1e-5)


def test_coefficients_are_finite_where_length_alone_tells_who_wins() -> None:
    gap = np.arange(-30.0, 30.0) + 0.5
    found = fit(without_difficulty((gap > 0).astype(float), gap))
    assert found.rate == pytest.approx(0.5, abs=1e-6)
    assert 1 < found.length < 10


@pytest.mark.parametrize("preference", [0.0, 1.0])
def test_a_model_that_always_wins_or_loses_has_a_rate_of_one_or_nought(preference: float) -> None:
    data = without_difficulty(np.full(30, preference), np.arange(30.0))
    assert fit(data).rate == pytest.approx(preference, abs=1e-6)
    assert interval(data, resamples=20) == pytest.approx((preference, preference), abs=1e-6)


def test_a_single_item_has_the_rate_of_its_preference() -> None:
    assert fit(without_difficulty(np.array([0.75]), np.array([9.0]))).rate == pytest.approx(0.75)


def test_the_start_does_not_change_what_is_found() -> None:
    data = simulated(200, 0.3, 1.0, 0.9)
    assert fit(data, LengthModel(-2.0, 3.0, -1.0, 0.0)) == pytest.approx(fit(data), abs=1e-7)


def test_the_interval_is_repeatable_and_has_the_width_of_the_sampling_error() -> None:
    data = simulated(500, 0.4, 0, 0)._replace(difference=np.zeros(500), difficulty=np.zeros(500))
    found = interval(data, 300, seed=3)
    assert found == interval(data, 300, seed=3)
    assert found != interval(data, 300, seed=4)
    p = data.preference.mean()
    half = 1.96 * np.sqrt(p * (1 - p) / 500)
    assert found == pytest.approx((p - half, p + half), abs=0.012)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    truth = expit(0.4)
    found = [interval(simulated(150, 0.4, 1.2, 0, seed), 40, seed) for seed in range(30)]
    held = sum(low <= truth <= high for low, high in found)
    assert held >= 25, "0.95 of 30 is 28.5"


def published(data: Path, model: str, version: int) -> tuple[Floats, Floats]:
    name = {1: "annotations_ae1_gpt4.json", 2: "annotations_ae2_weighted.json"}[version]
    read = read_annotations(data / "alpaca_eval" / model / name)
    rated = [one for one in read if one.preference is not None]
    gap = [len(one.output) - len(one.reference) for one in rated]
    return np.array([one.preference for one in rated]), np.array(gap, dtype=float)


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_rate_is_near_the_published_one_of_alpaca_eval_1(public_data: Path, model: str) -> None:
    found = fit(without_difficulty(*published(public_data, model, 1)))
    assert found.rate == pytest.approx(PUBLISHED[model][0], abs=0.015)


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_rate_nears_the_published_one_of_alpaca_eval_2_with_difficulties(
    public_data: Path, model: str
) -> None:
    """The published difficulties are not at hand; what other models won stands in for them."""
    preference, gap = published(public_data, model, 2)
    others = [published(public_data, other, 2)[0] for other in PUBLISHED if other != model]
    won = np.mean(others, axis=0)
    with_them = fit(Comparisons(preference, gap, (won - won.mean()) / won.std())).rate
    without = fit(without_difficulty(preference, gap)).rate
    assert with_them == pytest.approx(PUBLISHED[model][1], abs=0.011)
    assert 0.017 < without - PUBLISHED[model][1] < 0.031
