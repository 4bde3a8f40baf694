import numpy as np
import numpy.typing as npt
import pytest

from response_tuning.report.statistics import (
    Array,
    Estimate,
    bootstrap,
    bootstrap_ratios,
    cochran_armitage,
    constant_difference,
    effective,
    mcnemar,
    per_prompt,
    resampled_means,
    unvaried,
    wilson,
)
from response_tuning.report_config import ReportConfig

NAN = np.nan
CONFIG = ReportConfig(resamples=2000)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_a_prompt_is_the_mean_over_the_seeds_that_scored_it() -> None:
    values = np.array([[1.0, 0.0, NAN], [0.0, NAN, NAN]])
    assert per_prompt(values).tolist()[:2] == [0.5, 0.0]
    assert np.isnan(per_prompt(values)[2])


def test_wilsons_interval_is_that_of_the_textbook() -> None:
    # Newcombe (1998), Statistics in Medicine 17, 857-872, table I: 81/263, 15/148, 0/20, 1/29.
    assert wilson(81, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148, 0.95) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20, 0.95) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29, 0.95) == pytest.approx((0.0061, 0.1718), abs=5e-5)


def test_mcnemars_p_value_is_that_of_the_binomial_distribution() -> None:
    assert mcnemar(2, 10) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert mcnemar(10, 2) == mcnemar(2, 10)
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(0, 0) == 1.0


def test_the_trend_is_that_of_prop_trend_test_in_r() -> None:
    # R's example(prop.trend.test): smokers among the patients of four studies (Fleiss 1981).
    smokers, patients = np.array([83, 90, 129, 70]), [86, 93, 136, 82]
    z, p = cochran_armitage([1, 2, 3, 4], (smokers / patients).tolist(), patients)
    assert (z**2, p) == pytest.approx((8.2249, 0.004132), rel=1e-4)
    assert z < 0
    z, p = cochran_armitage([0, 0, 0, 1], (smokers / patients).tolist(), patients)
    assert (z**2, p) == pytest.approx((12.173, 0.0004848), rel=1e-3)


@pytest.mark.parametrize("share", [0.0, 1.0, 0.4])
def test_equal_proportions_have_no_trend(share: float) -> None:
    assert cochran_armitage([0, 20, 200], [share] * 3, [50] * 3) == pytest.approx((0.0, 1.0))


def test_the_standard_error_of_resampled_means_is_that_of_the_mean() -> None:
    units = rng().normal(size=(400, 1))
    means = resampled_means(units, 20_000, rng())
    assert means.mean() == pytest.approx(units.mean(), abs=0.002)
    assert means.std() == pytest.approx(units.std() / 20, rel=0.02)


def test_resamples_are_the_same_however_many_fit_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    units = rng().normal(size=(50, 3))
    whole = resampled_means(units, 100, rng())
    monkeypatch.setattr("response_tuning.report.statistics.CELLS", 7 * 50)
    assert np.allclose(whole, resampled_means(units, 100, rng()), atol=1e-12)


def test_columns_share_their_resamples() -> None:
    a = rng().normal(size=(60, 1))
    means = resampled_means(np.hstack([a, a + 1, 3 * a]), 100, rng())
    assert np.allclose(means[:, 0] + 1, means[:, 1])
    assert np.allclose(3 * means[:, 0], means[:, 2])


def test_a_bootstrap_of_columns_is_that_of_each_column() -> None:
    units = rng().integers(-1, 2, size=(80, 4)).astype(float)
    together = bootstrap(units, CONFIG, rng())
    alone = [bootstrap(units[:, [k]], CONFIG, rng())[0] for k in range(4)]
    assert together == alone


def test_a_clear_difference_has_the_smallest_p_value_there_is_and_it_is_not_zero() -> None:
    units = np.ones((100, 1))
    units[:5] = 0
    (found,) = bootstrap(units, CONFIG, rng())
    assert found.value == pytest.approx(0.95)
    assert found.p_value == pytest.approx(2 / 2001)
    assert found.p_equivalence == 1.0
    assert 0.85 < found.low < 0.95 < found.high <= 1.0


def test_a_difference_that_is_balanced_has_p_1_and_is_equivalent_within_the_margin() -> None:
    units = np.tile([[1.0], [-1.0], [0.0], [0.0]], (200, 1))
    (found,) = bootstrap(units, CONFIG, rng())
    assert (found.value, found.p_value) == (0.0, 1.0)
    assert found.p_equivalence == pytest.approx(1 / 2001)


def test_the_interval_excludes_0_exactly_where_p_is_below_1_minus_the_confidence() -> None:
    shifts = np.linspace(-0.3, 0.3, 61)
    units = rng().normal(size=(100, 1)) + shifts
    found = bootstrap(units, CONFIG, rng())
    excluded = [estimate.low > 0 or estimate.high < 0 for estimate in found]
    assert 10 < sum(excluded) < 50
    # One rank of the resampled means lies between the two.
    differ = [e != (f.p_value < 0.05) for e, f in zip(excluded, found, strict=True)]
    assert sum(differ) <= 1


def test_thirds_that_cancel_are_no_difference() -> None:
    units = np.array([[1 / 3], [1 / 3], [-2 / 3]] * 40)
    (found,) = bootstrap(units, CONFIG, rng())
    assert found.value == 0.0
    assert str(found.value) == "0.0"
    assert found.p_value > 0.9


def test_only_equal_values_are_constant() -> None:
    units = np.column_stack([np.full(20, 1 / 3), np.linspace(0, 1, 20)])
    assert [found.constant for found in bootstrap(units, CONFIG, rng())] == [True, False]


def same(value: float, n: int) -> Estimate:
    """What a bootstrap says where all of ``n`` prompts have the same value."""
    (found,) = bootstrap(np.full((n, 1), value), ReportConfig(resamples=100), rng())
    assert found.constant
    assert (found.low, found.high) == (value, value)
    return found


@pytest.mark.parametrize("n", [3, 10])
def test_where_all_prompts_are_gained_the_p_value_is_mcnemars(n: int) -> None:
    assert constant_difference(same(1.0, n), CONFIG).p_value == pytest.approx(mcnemar(n, 0))
    assert constant_difference(same(-1.0, n), CONFIG).p_value == pytest.approx(mcnemar(0, n))


def test_where_no_prompt_differs_few_prompts_do_not_show_equivalence_and_many_do() -> None:
    few, many = (constant_difference(same(0.0, n), CONFIG) for n in (10, 100))
    assert few.p_equivalence == pytest.approx(0.9**10)
    assert many.p_equivalence == pytest.approx(0.9**100)
    assert few.p_value == many.p_value == 1.0
    # Clopper and Pearson's upper limit of 0 in 10 is 0.3085.
    assert (few.low, few.high) == pytest.approx((-0.3085, 0.3085), abs=1e-4)


def test_a_constant_difference_beyond_the_margin_is_never_equivalent() -> None:
    assert constant_difference(same(0.5, 1000), CONFIG).p_equivalence == 1.0


def test_a_share_that_never_varies_has_the_limit_of_clopper_and_pearson() -> None:
    low, high = unvaried(same(0.0, 10), 0.0, CONFIG)[1:3]
    assert (low, high) == pytest.approx((0.0, 0.3085), abs=1e-4)
    low, high = unvaried(same(1.0, 10), 0.0, CONFIG)[1:3]
    assert (low, high) == pytest.approx((0.6915, 1.0), abs=1e-4)


def test_seeds_are_averaged_apart_for_numerators_and_denominators() -> None:
    parts = np.array([[[1.0, 0.0], [0.0, NAN]], [[2.0, 1.0], [0.0, NAN]]])
    assert per_prompt(parts).tolist() == [[0.5, 0.0], [1.0, 1.0]]


def one_ratio(*columns: npt.ArrayLike, config: ReportConfig = CONFIG) -> Estimate:
    """Estimate one quantity from the columns of its parts."""
    (found,) = bootstrap_ratios(np.array(columns, float).T[:, None], config, rng())
    return found


def test_a_ratio_is_that_of_the_sums() -> None:
    found = one_ratio([0.5 * 4, 1 * 1, 0 * 3], [4, 1, 3])
    assert found.value == pytest.approx(3 / 8)
    assert (found.n, found.undefined, found.constant) == (3, 0, False)
    assert found.effective == pytest.approx(8**2 / (16 + 1 + 9))


def test_with_weights_of_1_a_ratio_is_the_mean_and_its_interval_that_of_the_mean() -> None:
    units = rng().integers(0, 3, size=80) / 2
    (mean,) = bootstrap(units[:, None], CONFIG, rng())
    assert one_ratio(units, np.ones(80)) == mean
    paired = one_ratio(units, np.ones(80), units[::-1], np.ones(80))
    (difference,) = bootstrap((units - units[::-1])[:, None], CONFIG, rng())
    assert paired[:5] == pytest.approx(difference[:5], abs=1e-9)


def test_the_standard_error_of_a_ratio_is_that_of_the_delta_method() -> None:
    draw = np.random.default_rng(3)
    weights = draw.integers(1, 8, size=400)
    hits = draw.binomial(weights, 0.3)
    found = one_ratio(hits, weights, config=ReportConfig(resamples=20_000))
    ratio = hits.sum() / weights.sum()
    error = np.sqrt(((hits - ratio * weights) ** 2).sum()) / weights.sum()
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(error, rel=0.03)


def test_ratios_share_their_resamples_and_do_not_depend_on_each_other() -> None:
    draw = np.random.default_rng(4)
    weights = draw.integers(1, 5, size=(60, 3))
    parts = np.stack([draw.binomial(weights, 0.5), weights], axis=-1).astype(float)
    together = bootstrap_ratios(parts, CONFIG, rng())
    alone = [bootstrap_ratios(parts[:, [k]], CONFIG, rng())[0] for k in range(3)]
    assert together == alone
    twice = bootstrap_ratios(np.concatenate([parts, parts], axis=-1)[:, :1], CONFIG, rng())
    assert (twice[0].value, twice[0].low, twice[0].high) == (0, 0, 0)
    assert twice[0].constant


def test_resamples_in_which_nothing_counts_are_left_out_and_counted() -> None:
    weights = [1, 1, *[0] * 98]
    found = one_ratio([1, 0, *[0] * 98], weights)
    # The chance that neither of two prompts of 100 is drawn in 100 draws is 0.98^100 = 0.133.
    assert found.undefined / CONFIG.resamples == pytest.approx(0.133, abs=0.03)
    assert (found.value, found.low, found.high, found.n) == (0.5, 0, 1, 2)
    both = one_ratio([1, 0, *[0] * 98], weights, [0] * 100, weights[::-1])
    assert both.undefined > found.undefined
    assert both.n == 4


def test_prompts_of_equal_weight_are_all_effective_and_one_that_outweighs_all_is_one() -> None:
    assert effective(np.full(50, 0.1)) == pytest.approx(50)
    assert effective(np.array([1e9, 1, 1, 1])) == pytest.approx(1)


PROMPTS, SEEDS, RUNS = 150, 3, 3000


def simulated(shift: float) -> tuple[Array, float]:
    """Draw paired experiments of clustered data: (prompts, runs) of differences, and the truth.

    A prompt has a difficulty that all its answers share; the variant's chance of a correct answer
    is above the baseline's by ``shift``.
    """
    draw = np.random.default_rng(11)
    chance = draw.beta(1, 1, size=(PROMPTS, RUNS)) * 0.7 + 0.15
    answers = draw.random((2, SEEDS, PROMPTS, RUNS)) < np.stack([chance, chance + shift])[:, None]
    means = answers.mean(axis=1)
    return means[1] - means[0], shift


def test_a_95_percent_interval_of_a_mean_covers_the_truth_in_95_percent_of_experiments() -> None:
    draw = np.random.default_rng(5)
    chance = draw.beta(0.6, 0.3, size=(PROMPTS, RUNS))  # its mean is 2/3
    units = (draw.random((SEEDS, PROMPTS, RUNS)) < chance).mean(axis=0)
    found = bootstrap(units, ReportConfig(resamples=1000), rng())
    covered = np.mean([estimate.low <= 2 / 3 <= estimate.high for estimate in found])
    assert 0.92 < covered < 0.98
    # Seeds of a prompt are no independent observations: an interval of n x seeds is too short.
    naive = [wilson(round(e.value * PROMPTS * SEEDS), PROMPTS * SEEDS, 0.95) for e in found]
    assert np.mean([low <= 2 / 3 <= high for low, high in naive]) < 0.9


def test_a_95_percent_interval_of_a_difference_covers_the_truth_in_95_percent() -> None:
    units, truth = simulated(0.06)
    found = bootstrap(units, ReportConfig(resamples=1000), rng())
    assert 0.92 < np.mean([e.low <= truth <= e.high for e in found]) < 0.98


def test_five_percent_of_comparisons_of_equals_are_significant() -> None:
    units, _ = simulated(0.0)
    found = bootstrap(units, ReportConfig(resamples=1000), rng())
    assert 0.035 < np.mean([e.p_value < 0.05 for e in found]) < 0.065


def test_a_difference_of_the_margin_is_called_equivalent_in_five_percent_at_most() -> None:
    config = ReportConfig(resamples=1000, margin=0.1)
    for shift in (0.1, -0.1):
        at_the_margin = bootstrap(simulated(shift)[0], config, rng())
        assert 0.02 < np.mean([e.p_equivalence < 0.05 for e in at_the_margin]) < 0.065
    equals = bootstrap(simulated(0.0)[0], config, rng())
    assert np.mean([e.p_equivalence < 0.05 for e in equals]) > 0.6


def refusing(shift: float, runs: int = 1000) -> Array:
    """Draw parts (prompts, runs, 4) of the precision of two variants that refuse more or less.

    Half of the prompts are unsafe; a variant refuses these with a chance of 0.6, give or take what
    is the prompt's own, and the others with 0.2 less ``shift`` and with 0.2.
    """
    draw = np.random.default_rng(17)
    unsafe = draw.random((PROMPTS, runs)) < 0.5
    own = draw.uniform(-0.2, 0.2, size=(PROMPTS, runs))
    parts = []
    for other in (0.2 - shift, 0.2):
        chance = np.where(unsafe, 0.6 + own, other * (1 + 4 * own))
        refused = (draw.random((SEEDS, PROMPTS, runs)) < chance).mean(axis=0)
        parts += [refused * unsafe, refused]
    return np.stack(parts, axis=-1)


def test_a_95_percent_interval_of_a_ratio_covers_the_truth_in_95_percent_of_experiments() -> None:
    found = bootstrap_ratios(refusing(0.0)[:, :, :2], ReportConfig(resamples=1000), rng())
    truth = 0.6 / (0.6 + 0.2)
    assert 0.92 < np.mean([e.low <= truth <= e.high for e in found]) < 0.97


@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_a_95_percent_interval_of_a_difference_of_ratios_covers_the_truth(shift: float) -> None:
    found = bootstrap_ratios(refusing(shift), ReportConfig(resamples=1000), rng())
    truth = 0.6 / (0.8 - shift) - 0.6 / 0.8
    assert 0.92 < np.mean([e.low <= truth <= e.high for e in found]) < 0.97
    if not shift:
        assert 0.03 < np.mean([e.p_value < 0.05 for e in found]) < 0.08
