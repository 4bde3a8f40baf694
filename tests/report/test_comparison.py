from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from response_tuning.errors import ConfigError
from response_tuning.metrics import Display
from response_tuning.report.comparison import Findings, check, compare
from response_tuning.report.joined import Variant
from response_tuning.report.reading import read_scores
from response_tuning.report.statistics import cochran_armitage, wilson
from response_tuning.report.tables import Comparison, Result
from response_tuning.report_config import ReportConfig

Grade = Callable[..., None]
Add = Callable[..., None]

CONFIG = ReportConfig(baselines=("it",), resamples=500)
RT, IT = Variant("rt", "responses alone"), Variant("it", "with instructions")
FEW = Variant("rt-50", "and 50 refusals", "rt", 50)
MANY = Variant("rt-200", "and 200 refusals", "rt", 200)


def findings(
    run: Path,
    variants: Sequence[Variant] = (IT, RT),
    config: ReportConfig = CONFIG,
    headline: tuple[str, ...] = (),
) -> Findings:
    names = [variant.name for variant in variants]
    benchmarks, _ = read_scores(run, names, benchmarks={"quiz": Display(headline)})
    return compare(benchmarks, variants, config)


def only_comparison(found: Findings) -> Comparison:
    (comparison,) = found.comparisons
    return comparison


def test_a_proportion_of_one_seed_has_wilsons_interval(run: Path, grade: Grade) -> None:
    grade("rt", {"correct": [1] * 30 + [0] * 10})
    (result,) = findings(run, [RT], ReportConfig()).results
    assert result == Result("rt", "quiz", "correct", 0.75, *wilson(30, 40, 0.95), 40, 1)


def test_several_seeds_are_resampled_by_prompt(run: Path, grade: Grade) -> None:
    for seed in range(3):  # the seeds agree, so there are 40 observations and not 120
        grade("rt", {"correct": [1] * 30 + [0] * 10}, seed=seed)
    (result,) = findings(run, [RT], ReportConfig()).results
    assert (result.value, result.n, result.seeds) == (0.75, 40, 3)
    low, high = wilson(30, 40, 0.95)
    assert result.high - result.low == pytest.approx(high - low, rel=0.1)


@pytest.mark.parametrize("value", [0, 1])
def test_seeds_that_all_agree_have_wilsons_interval_and_no_point(
    run: Path, grade: Grade, value: int
) -> None:
    for seed in range(3):
        grade("rt", {"correct": [value] * 20}, seed=seed)
    (result,) = findings(run, [RT], ReportConfig()).results
    assert (result.low, result.high) == wilson(20 * value, 20, 0.95)


def test_a_mean_that_is_no_proportion_is_resampled(run: Path, grade: Grade) -> None:
    grade("rt", {"words": [3, 5, 7, 9] * 10})
    (result,) = findings(run, [RT], ReportConfig()).results
    assert result.value == 6
    assert 5 < result.low < 5.6
    assert 6.4 < result.high < 7


def test_one_seed_of_right_and_wrong_is_tested_by_mcnemar(run: Path, grade: Grade) -> None:
    grade("it", {"correct": [1] * 20 + [0] * 12 + [1] * 2})
    grade("rt", {"correct": [1] * 20 + [1] * 10 + [0] * 4})
    found = only_comparison(findings(run))
    assert (found.baseline, found.variant, found.n, found.seeds) == ("it", "rt", 34, 1)
    assert found.delta == pytest.approx(8 / 34)
    assert found.method == "mcnemar-exact"
    assert found.p_value == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert 0 < found.low < found.delta < found.high < 0.5


def test_several_seeds_and_other_metrics_are_tested_by_bootstrap(run: Path, grade: Grade) -> None:
    for seed in (0, 1):
        grade("it", {"correct": [1, 0] * 20, "words": [4, 6] * 20}, seed=seed)
        grade("rt", {"correct": [0, 0] * 20, "words": [4, 7] * 20}, seed=seed)
    correct, words = findings(run).comparisons
    assert (correct.method, words.method) == ("cluster-bootstrap", "cluster-bootstrap")
    assert (correct.delta, words.delta, correct.seeds) == (-0.5, 0.5, 2)
    assert correct.p_value == pytest.approx(2 / 501)


def test_one_seed_of_something_else_is_not_tested_by_mcnemar(run: Path, grade: Grade) -> None:
    grade("it", {"words": [4, 6] * 20})
    grade("rt", {"words": [4, 9] * 20})
    assert only_comparison(findings(run)).method == "cluster-bootstrap"


def test_pairing_finds_what_the_two_intervals_hide(run: Path, grade: Grade) -> None:
    grade("it", {"correct": ([1] * 10 + [0] * 10) * 10})
    grade("rt", {"correct": ([1] * 9 + [0] * 11) * 10})
    found = findings(run)
    it, rt = found.results
    assert rt.high > it.value > it.low > rt.low  # the intervals overlap
    assert found.comparisons[0].high < 0
    assert found.comparisons[0].p_value == pytest.approx(2 / 2**10)


def test_equivalence_is_tested_for_the_metrics_that_were_named_and_no_others(
    run: Path, grade: Grade
) -> None:
    same = [1, 0] * 150
    grade("it", {"strict": same, "correct": same})
    grade("rt", {"strict": [*same[2:], 0, 1], "correct": same})
    strict, correct = findings(run).comparisons
    assert (strict.margin, strict.equivalent) == (0.10, True)
    assert strict.p_equivalence == pytest.approx(1 / 501)
    assert (correct.margin, correct.p_equivalence, correct.equivalent) == (None, None, None)


def test_no_difference_on_a_few_prompts_is_no_equivalence(run: Path, grade: Grade) -> None:
    grade("it", {"strict": [1, 0, 1, 0]})
    grade("rt", {"strict": [1, 0, 1, 0]})
    found = only_comparison(findings(run))
    assert (found.delta, found.p_value, found.equivalent) == (0, 1, False)
    assert found.low < -0.5 < 0.5 < found.high


def test_a_metric_of_equivalence_that_is_nowhere_is_said(run: Path, grade: Grade) -> None:
    grade("it", {"correct": [1, 0]})
    assert findings(run, [IT]).unjoined == [
        "Equivalence was not tested by strict: no benchmark has that metric."
    ]


def test_what_only_one_of_a_pair_has_is_left_out_and_counted(run: Path, grade: Grade) -> None:
    grade("it", {"correct": [1, 1, 1, None], "stopped": [1, 1, 1, None]}, seed=0)
    grade("rt", {"correct": [0, 1, None, 1], "stopped": [0, 1, None, 1]}, seed=0)
    grade("rt", {"correct": [0, 1, 0, 1], "stopped": [0, 1, 0, 1]}, seed=1)
    found = findings(run, config=CONFIG.model_copy(update={"equivalence": ()}))
    assert {(c.delta, c.n, c.seeds) for c in found.comparisons} == {(-0.5, 2, 1)}
    assert found.unjoined == [
        "quiz, rt against it: 6 scores of one have no partner of the same prompt and seed in the "
        "other (correct, stopped)."
    ]


def test_a_pair_without_anything_in_common_has_no_line(run: Path, grade: Grade) -> None:
    grade("it", {"strict": [1, None]})
    grade("rt", {"strict": [None, 1]})
    found = findings(run)
    assert found.comparisons == []
    assert found.unjoined[0].startswith("quiz, rt against it: 2 scores of one have no partner")


def test_every_baseline_is_compared_with_every_other_variant(run: Path, grade: Grade) -> None:
    for name in ("it", "rt", "rt-50"):
        grade(name, {"correct": [1, 0, 1]})
    config = ReportConfig(baselines=("rt", "it"), resamples=100)
    found = findings(run, (IT, RT, FEW), config)
    assert [(c.baseline, c.variant) for c in found.comparisons] == [
        ("rt", "it"), ("rt", "rt-50"), ("it", "rt"), ("it", "rt-50"),
    ]  # fmt: skip


def test_numbers_do_not_depend_on_the_order_or_the_company_of_variants(
    run: Path, grade: Grade
) -> None:
    for seed in range(2):
        for place, name in enumerate(("it", "rt", "rt-50")):
            values = [(item * (place + 3) + seed) % 5 / 5 for item in range(30)]
            grade(name, {"correct": values, "words": [9 * value for value in values]}, seed=seed)
    all_ = findings(run, (IT, RT, FEW))
    assert {*findings(run, (FEW, RT, IT)).comparisons} == {*all_.comparisons}
    assert {*findings(run, (IT, RT)).comparisons} < {*all_.comparisons}
    assert {*findings(run, (RT, IT)).results} < {*all_.results}
    other_seed = CONFIG.model_copy(update={"seed": 1})
    assert {*findings(run, (IT, RT, FEW), other_seed).comparisons} != {*all_.comparisons}


def dosed(grade: Grade, counts: Sequence[int], metric: str = "refusal", seeds: int = 1) -> None:
    for name, count in zip(("rt", "rt-50", "rt-200"), counts, strict=True):
        for seed in range(seeds):
            grade(name, {metric: [1] * count + [0] * (100 - count)}, seed=seed)


SERIES = (MANY, replace(RT, series="rt", dose=0), FEW)


def test_a_series_is_tested_for_a_trend_in_the_order_of_its_doses(run: Path, grade: Grade) -> None:
    dosed(grade, (5, 30, 80))
    (trend,) = findings(run, SERIES, ReportConfig(resamples=100)).trends
    assert (trend.series, trend.metric, trend.doses) == ("rt", "refusal", (0, 50, 200))
    assert trend.values == (0.05, 0.3, 0.8)
    assert (trend.n, trend.significant_drop) == (100, False)
    assert trend.z > 5
    assert trend.p_value < 1e-6


def test_seeds_do_not_make_a_trend_more_significant(run: Path, grade: Grade) -> None:
    dosed(grade, (5, 8, 12))
    one = findings(run, SERIES, ReportConfig(resamples=100)).trends
    dosed(grade, (5, 8, 12), seeds=3)
    assert findings(run, SERIES, ReportConfig(resamples=100)).trends == one


def test_a_fall_between_two_doses_is_a_significant_drop(run: Path, grade: Grade) -> None:
    dosed(grade, (5, 90, 70), "false_refusal")
    (trend,) = findings(run, SERIES, ReportConfig(resamples=100)).trends
    assert (trend.metric, trend.significant_drop) == ("false_refusal", True)
    assert trend.z > 0
    dosed(grade, (5, 90, 89), "false_refusal")
    (trend,) = findings(run, SERIES, ReportConfig(resamples=100)).trends
    assert not trend.significant_drop


def test_a_dose_without_scores_is_skipped_and_its_neighbours_are_adjacent(
    run: Path, grade: Grade
) -> None:
    dosed(grade, (90, 90, 40))
    grade("rt-50", {"stopped": [1]})
    (trend,) = findings(run, SERIES, ReportConfig(resamples=100)).trends
    assert (trend.doses, trend.significant_drop) == ((0, 200), True)


def test_other_metrics_single_doses_and_variants_of_no_series_have_no_trend(
    run: Path, grade: Grade
) -> None:
    dosed(grade, (5, 30, 80), "correct")
    assert findings(run, SERIES, ReportConfig(resamples=100)).trends == []
    dosed(grade, (5, 30, 80))
    assert findings(run, (RT, FEW), ReportConfig(resamples=100)).trends == []
    no_dose = replace(MANY, dose=None)
    assert findings(run, (no_dose, FEW), ReportConfig(resamples=100)).trends == []


def test_an_unknown_baseline_is_one_line_with_the_names_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"unknown baseline 'its': did you mean 'it'\? known are"):
        check([RT, IT], ReportConfig(baselines=("its",)))


def test_two_variants_of_one_dose_are_refused() -> None:
    twin = replace(FEW, name="twin")
    with pytest.raises(ConfigError, match="series 'rt': 'rt-50' and 'twin' have the same dose, 50"):
        check([FEW, twin], ReportConfig())
    check([FEW, MANY, RT], ReportConfig(baselines=("rt",)))


def test_a_ratio_has_no_interval_of_wilsons_and_no_test_of_mcnemars(
    run: Path, grade: Grade
) -> None:
    stopped = {"stopped": [1] * 40}
    grade("it", {"f1": [(1, 2), (0, 1), (0, 1), (1, 2)] * 10, **stopped})
    grade("rt", {"f1": [(1, 2), (0, 1), None, (1, 2)] * 10, **stopped})
    found = findings(run, config=CONFIG.model_copy(update={"equivalence": ()}))
    f1 = {result.variant: result for result in found.results if result.metric == "f1"}
    assert (f1["it"].value, f1["rt"].value) == pytest.approx((4 / 6, 4 / 5))
    assert (f1["it"].n, f1["rt"].n, f1["it"].seeds) == (40, 30, 1)
    assert (f1["it"].low, f1["it"].high) != wilson(27, 40, 0.95)
    assert f1["it"].low < 0.6 < 0.72 < f1["it"].high
    comparison, other = found.comparisons
    assert (comparison.method, other.method) == ("cluster-bootstrap", "mcnemar-exact")
    assert comparison.delta == pytest.approx(4 / 5 - 4 / 6)
    assert (comparison.n, comparison.seeds) == (40, 1)
    assert found.unjoined == []


def test_a_ratio_that_never_varies_has_an_interval_and_no_point(run: Path, grade: Grade) -> None:
    grade("it", {"strict": [(1, 3)] * 10})
    grade("rt", {"strict": [(1, 3)] * 10})
    found = findings(run)
    for result in found.results:
        assert (result.value, result.high) == (1, 1)
        assert result.low == pytest.approx(0.6915, abs=1e-4)  # Clopper and Pearson, 10 of 10
    comparison = only_comparison(found)
    assert (comparison.delta, comparison.p_value, comparison.equivalent) == (0, 1, False)
    assert comparison.low < -0.3 < 0.3 < comparison.high


def test_the_equivalence_of_ratios_is_tested(run: Path, grade: Grade) -> None:
    grade("it", {"strict": [(1, 2), (0, 1), (0.5, 2)] * 100})
    grade("rt", {"strict": [(0, 2), (1, 1), (0.5, 2), *[(1, 2), (0, 1), (0.5, 2)] * 99]})
    comparison = only_comparison(findings(run))
    assert comparison.equivalent
    assert comparison.p_equivalence == pytest.approx(1 / 501)


def test_what_of_a_ratio_only_one_has_is_left_out_and_counted(run: Path, grade: Grade) -> None:
    grade("it", {"drfr": [(1, 2), (0, 1), None]})
    grade("rt", {"drfr": [(1, 2), (1, 1), (1, 9)]})
    found = findings(run, config=CONFIG.model_copy(update={"equivalence": ()}))
    assert only_comparison(found).delta == pytest.approx(1 / 3)
    assert found.unjoined == [
        "quiz, rt against it: 1 scores of one have no partner of the same prompt and seed in the "
        "other (drfr)."
    ]


def test_resamples_without_a_ratio_are_counted_where_all_can_read_it(
    run: Path, grade: Grade
) -> None:
    stopped = {"stopped": [1] * 50}
    grade("it", {"precision": [1, 0] * 25, **stopped})
    grade("rt", {"precision": [1, 0, *[None] * 48], **stopped})
    found = findings(run, config=CONFIG.model_copy(update={"equivalence": ()}))
    assert [line.partition(": ")[0] for line in found.unjoined] == [
        "quiz, rt",
        "quiz, rt against it",
    ]
    assert found.unjoined[0].endswith(
        " of 500 resamples were left out of precision: none of their answers counts."
    )


def test_a_total_is_a_mean_over_seeds_and_is_not_compared(
    run: Path, grade: Grade, total: Add
) -> None:
    for seed, value in enumerate((0.4, 0.6)):
        grade("it", {"win_rate": [1, 0]}, seed=seed)
        grade("rt", {"win_rate": [1, 0], "win": [1, 0]}, seed=seed)
        low, high = value - 0.1 * (1 + seed), value + 0.1
        total("rt", {"length_controlled_win_rate": (value, low, high)}, seed=seed, n=2 + seed)
    found = findings(run, headline=("length_controlled_win_rate", "win_rate"))
    assert [(r.variant, r.metric) for r in found.results] == [
        ("it", "win_rate"),
        ("rt", "length_controlled_win_rate"),
        ("rt", "win_rate"),
        ("rt", "win"),
    ]
    mean = found.results[1]
    assert (mean.value, mean.low, mean.high) == pytest.approx((0.5, 0.35, 0.6))
    assert (mean.n, mean.seeds) == (3, 2)
    assert {c.metric for c in found.comparisons} == {"win_rate"}


def test_a_trend_of_weighted_refusals_counts_the_prompts_that_weigh_as_much(
    run: Path, grade: Grade
) -> None:
    def subsets(standard: int, contextual: int) -> list[tuple[float, float]]:
        values = [1] * standard + [0] * (80 - standard), [1] * contextual + [0] * (20 - contextual)
        return [(value, 1 / len(part)) for part in values for value in part]

    for name, counts in (("rt", (8, 2)), ("rt-50", (40, 4)), ("rt-200", (72, 12))):
        grade(name, {"refusal": subsets(*counts)})
    (trend,) = findings(run, SERIES, ReportConfig(resamples=100)).trends
    assert trend.values == pytest.approx((0.1, 0.35, 0.75))
    assert trend.n == 100
    z, p = cochran_armitage([0, 50, 200], [0.1, 0.35, 0.75], [4 / (1 / 80 + 1 / 20)] * 3)
    assert (trend.z, trend.p_value) == pytest.approx((z, p))
    assert not trend.significant_drop
