import numpy as np
import pytest

from response_tuning.report.variance import (
    Array,
    Labels,
    effective,
    influences,
    per_prompt,
    variance,
)

NAN = np.nan


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def of_mean(scores: Array) -> Array:
    return influences(np.stack([scores, np.where(np.isfinite(scores), 1.0, NAN)]))


def alone(prompts: int) -> Labels:
    return np.arange(prompts)


def test_a_prompt_is_the_mean_over_the_seeds_that_scored_it() -> None:
    values = np.array([[1.0, 0.0, NAN], [0.0, NAN, NAN]])
    assert per_prompt(values).tolist()[:2] == [0.5, 0.0]
    assert np.isnan(per_prompt(values)[2])


def test_seeds_are_averaged_apart_for_numerators_and_denominators() -> None:
    parts = np.array([[[1.0, 0.0], [0.0, NAN]], [[2.0, 1.0], [0.0, NAN]]])
    assert per_prompt(parts).tolist() == [[0.5, 0.0], [1.0, 1.0]]


def test_prompts_of_equal_weight_are_all_effective_and_one_that_outweighs_all_is_one() -> None:
    assert effective(np.full(50, 0.1)) == pytest.approx(50)
    assert effective(np.array([1e9, 1, 1, 1])) == pytest.approx(1)


def test_one_seed_has_the_variance_of_a_mean() -> None:
    scores = rng().normal(size=(1, 40))
    found = variance(of_mean(scores), alone(40))
    assert found == pytest.approx((scores.var(ddof=1) / 40, 39))


def test_two_seeds_have_the_variance_of_the_means_of_prompts() -> None:
    scores = rng().normal(size=(2, 40))
    found = variance(of_mean(scores), alone(40))
    assert found == pytest.approx((scores.mean(axis=0).var(ddof=1) / 40, 39))


def test_phrasings_that_agree_have_the_variance_of_one_phrasing() -> None:
    scores = rng().normal(size=(1, 40))
    repeated = variance(of_mean(np.repeat(scores, 5, axis=1)), np.repeat(alone(40), 5))
    assert repeated == pytest.approx(variance(of_mean(scores), alone(40)))


def test_clusters_have_the_standard_error_of_the_literature() -> None:
    # Miller 2024, equation 4: the sum of products of all pairs of residuals inside a cluster.
    scores, clusters = rng().normal(size=(1, 60)), np.repeat(np.arange(12), 5)
    residuals = scores[0] - scores[0].mean()
    inside = clusters[:, None] == clusters
    expected = float((residuals[:, None] * residuals * inside).sum()) / 60**2
    assert variance(of_mean(scores), clusters).value == pytest.approx(expected * 12 / 11)


def test_three_seeds_have_the_variance_of_a_two_way_layout() -> None:
    prompts, seeds = 30, 4
    scores = (
        rng().normal(size=(seeds, prompts))
        + 2 * rng().normal(size=(1, prompts))
        + np.array([[0.0], [1.0], [2.0], [4.0]])
    )
    # The textbook's mean squares of rows, columns and residuals.
    by_seed, by_prompt = scores.mean(axis=1), scores.mean(axis=0)
    seed_square = prompts * by_seed.var(ddof=1)
    prompt_square = seeds * by_prompt.var(ddof=1)
    rest = scores - by_seed[:, None] - by_prompt + scores.mean()
    rest_square = (rest**2).sum() / ((seeds - 1) * (prompts - 1))
    parts = np.array([seed_square, prompt_square, -rest_square]) / (seeds * prompts)
    freedom = np.array([seeds - 1, prompts - 1, (seeds - 1) * (prompts - 1)])
    found = variance(of_mean(scores), alone(prompts))
    assert found.value == pytest.approx(parts.sum())
    assert found.df == pytest.approx(parts.sum() ** 2 / (parts**2 / freedom).sum())


def test_seeds_that_all_agree_leave_the_variance_of_one() -> None:
    scores = rng().normal(size=(1, 40))
    assert variance(of_mean(np.repeat(scores, 3, axis=0)), alone(40)) == pytest.approx(
        variance(of_mean(scores), alone(40))
    )


def test_the_variance_is_never_below_what_varies_from_answer_to_answer() -> None:
    # Every prompt and every seed has the same mean, so that both sums are 0.
    scores = np.array([[1.0, 0.0] * 10, [0.0, 1.0] * 10, [0.5, 0.5] * 10])
    found = variance(of_mean(scores), alone(20))
    assert found.value == pytest.approx(10 / 38 / 60)
    assert 2 <= found.df <= 19


def test_a_single_cluster_says_nothing() -> None:
    assert variance(of_mean(np.array([[1.0, 0.0, 1.0]])), np.zeros(3, dtype=int)) == (0, 0)


def test_scores_that_are_missing_are_left_out() -> None:
    scores = rng().normal(size=(2, 20))
    scores[0, 3] = scores[1, 3] = scores[1, 7] = NAN
    influence = of_mean(scores)
    assert influence[:, 3].tolist() == [0, 0]
    # A prompt counts once: its single score weighs as much as two of another prompt.
    assert influence[0, 7] == pytest.approx((scores[0, 7] - np.nanmean(per_prompt(scores))) / 19)
    assert influence.sum() == pytest.approx(0)


def test_the_variance_of_a_ratio_is_that_of_the_delta_method() -> None:
    draw = np.random.default_rng(3)
    weights = draw.integers(1, 8, size=400).astype(float)
    hits = draw.binomial(weights.astype(int), 0.3).astype(float)
    ratio = hits.sum() / weights.sum()
    expected = ((hits - ratio * weights) ** 2).sum() / weights.sum() ** 2
    found = variance(influences(np.stack([hits, weights])[:, None]), alone(400))
    assert found.value == pytest.approx(expected * 400 / 399)


def test_the_variance_is_that_of_resampled_clusters() -> None:
    draw = np.random.default_rng(5)
    facts = draw.normal(size=40)
    scores = np.repeat(facts, 4)[None] + draw.normal(size=(1, 160))
    clusters = np.repeat(np.arange(40), 4)
    chosen = draw.integers(40, size=(4000, 40))
    means = scores[0].reshape(40, 4).mean(axis=1)[chosen].mean(axis=1)
    found = variance(of_mean(scores), clusters)
    assert np.sqrt(found.value) == pytest.approx(means.std(), rel=0.05)
