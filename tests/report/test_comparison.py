from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from response_tuning.errors import ConfigError
from response_tuning.metrics import Display
from response_tuning.report.comparison import Findings, check, check_names, compare
from response_tuning.report.intervals import PairedShares, Share
from response_tuning.report.joined import Variant
from response_tuning.report.reading import read_scores
from response_tuning.report.tables import Comparison, Result
from response_tuning.report_config import EquivalenceConfig, PrimaryConfig, ReportConfig

Grade = Callable[..., None]
Add = Callable[..., None]

CONFIG = ReportConfig(baselines=("it",))
MARGIN = ReportConfig(
    baselines=("it",), equivalence={"strict": EquivalenceConfig(margin=0.10, reason="Small.")}
)
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
    low, high = Share(0.75, 40).interval(0.95)
    assert result == Result("rt", "quiz", "correct", 0.75, low, high, 40, 1, 40, None, (0.75,))


def test_phrasings_of_one_fact_count_as_one(run: Path, grade: Grade) -> None:
    grade("it", {"correct": [1] * 30 + [0] * 10})
    grade("rt", {"correct": [1] * 20 + [0] * 20})
    apart = findings(run)
    facts = [f"fact {place // 5}" for place in range(40)]
    grade("it", {"correct": [1] * 30 + [0] * 10}, clusters=facts)
    grade("rt", {"correct": [1] * 20 + [0] * 20}, clusters=facts)
    together = findings(run)
    assert [(r.n, r.clusters) for r in together.results] == [(40, 8)] * 2
    one, other = apart.comparisons[0], together.comparisons[0]
    assert (one.delta, one.clusters, other.delta, other.clusters) == (-0.25, 40, -0.25, 8)
    assert other.high - other.low > 2 * (one.high - one.low)
    assert one.p_value == pytest.approx(PairedShares(0, 0.25, 40).p_value(0))
    assert other.p_value > 10 * one.p_value


def test_two_seeds_are_averaged_prompt_by_prompt(run: Path, grade: Grade) -> None:
    for seed in range(2):  # the seeds agree, so there are 40 observations and not 80
        grade("rt", {"correct": [1] * 30 + [0] * 10}, seed=seed)
    (result,) = findings(run, [RT], ReportConfig()).results
    assert (result.value, result.n, result.seeds) == (0.75, 40, 2)
    low, high = Share(0.75, 40).interval(0.95)
    assert result.high - result.low == pytest.approx(high - low, rel=0.1)
    assert (result.seed_sd, result.seed_values) == (0, (0.75, 0.75))


def test_from_three_seeds_on_the_interval_covers_seeds_as_well(run: Path, grade: Grade) -> None:
    for seed, right in enumerate((28, 34, 40)):
        grade("rt", {"correct": [1] * right + [0] * (40 - right)}, seed=seed)
        grade("it", {"correct": [1] * 20 + [0] * 20}, seed=seed)
    found = findings(run)
    rt = found.results[1]
    assert (rt.value, rt.seed_values) == (0.85, (0.7, 0.85, 1.0))
    assert rt.seed_sd == pytest.approx(0.15)
    # With two degrees of freedom for seeds: 4.3 x 0.15 / sqrt(3) = 0.37.
    assert rt.low < 0.5
    comparison = only_comparison(found)
    assert comparison.seed_deltas == pytest.approx((0.2, 0.35, 0.5))
    assert comparison.high - comparison.low > 0.6
    for seed in (0, 2):
        (run / "rt" / f"seed-{seed}" / "grade" / "quiz.jsonl").unlink()
    alone = only_comparison(findings(run))
    assert (alone.delta, alone.seeds) == (0.35, 1)
    assert alone.high - alone.low < 0.35


@pytest.mark.parametrize("value", [0, 1])
def test_seeds_that_all_agree_have_wilsons_interval_and_no_point(
    run: Path, grade: Grade, value: int
) -> None:
    for seed in range(3):
        grade("rt", {"correct": [value] * 20}, seed=seed)
    (result,) = findings(run, [RT], ReportConfig()).results
    assert (result.low, result.high) == Share(value, 20).interval(0.95)


def test_a_mean_that_is_no_proportion_has_students_interval(run: Path, grade: Grade) -> None:
    grade("rt", {"words": [3, 5, 7, 9] * 10})
    (result,) = findings(run, [RT], ReportConfig()).results
    # By hand: 6 +- t(0.975, 39) = 2.0227 standard errors of sqrt(5 x 40 / 39 / 40).
    assert (result.value, result.low, result.high) == pytest.approx((6, 5.2758, 6.7242), abs=1e-4)


def test_one_seed_of_right_and_wrong_has_tangos_interval_and_its_test(
    run: Path, grade: Grade
) -> None:
    grade("it", {"correct": [1] * 20 + [0] * 12 + [1] * 2})
    grade("rt", {"correct": [1] * 20 + [1] * 10 + [0] * 4})
    found = only_comparison(findings(run))
    assert (found.baseline, found.variant, found.n, found.seeds) == ("it", "rt", 34, 1)
    assert found.delta == pytest.approx(8 / 34)
    assert found.method == "tango"
    # McNemar's chi-squared of 10 gains and 2 losses is 64 / 12.
    assert found.p_value == pytest.approx(0.020921, abs=1e-6)
    assert 0 < found.low < found.delta < found.high < 0.5
    assert found.verdict == "higher"


def test_metrics_without_ends_have_students_test(run: Path, grade: Grade) -> None:
    for seed in (0, 1):
        grade("it", {"correct": [1, 0] * 20, "words": [4, 6] * 20}, seed=seed)
        grade("rt", {"correct": [0, 0] * 20, "words": [4, 7] * 20}, seed=seed)
    correct, words = findings(run).comparisons
    assert (correct.method, words.method) == ("tango", "t")
    assert (correct.delta, words.delta, correct.seeds) == (-0.5, 0.5, 2)
    assert correct.verdict == "lower"
    # By hand: t = 0.5 / sqrt(0.25 x 40 / 39 / 40) = 6.245 with 39 degrees of freedom.
    assert words.p_value == pytest.approx(2.38e-07, rel=0.01)


def test_equal_differences_without_ends_have_the_sign_test(run: Path, grade: Grade) -> None:
    grade("it", {"words": [4, 6] * 5})
    grade("rt", {"words": [5, 7] * 5})
    found = only_comparison(findings(run))
    assert (found.method, found.p_value) == ("sign", 2 / 2**10)


def test_pairing_finds_what_the_two_intervals_hide(run: Path, grade: Grade) -> None:
    grade("it", {"correct": ([1] * 10 + [0] * 10) * 10})
    grade("rt", {"correct": ([1] * 9 + [0] * 11) * 10})
    found = findings(run)
    it, rt = found.results
    assert rt.high > it.value > it.low > rt.low  # the intervals overlap
    assert found.comparisons[0].high < 0
    assert found.comparisons[0].p_value == pytest.approx(0.0015654, abs=1e-6)  # chi-squared is 10


def test_equivalence_is_tested_for_the_metrics_that_were_named_and_no_others(
    run: Path, grade: Grade
) -> None:
    same = [1, 0] * 150
    grade("it", {"strict": same, "correct": same})
    grade("rt", {"strict": [*same[2:], 0, 1], "correct": same})
    strict, correct = findings(run, config=MARGIN).comparisons
    assert (strict.margin, strict.equivalent, strict.verdict) == (0.10, True, "equivalent")
    assert strict.p_equivalence is not None
    assert strict.p_equivalence < 1e-6
    assert (correct.margin, correct.p_equivalence, correct.equivalent) == (None, None, None)
    assert correct.verdict == "inconclusive"


def test_the_margin_of_one_benchmark_wins(run: Path, grade: Grade) -> None:
    margins = {
        "strict": EquivalenceConfig(margin=0.1, reason="Small."),
        "quiz/strict": EquivalenceConfig(margin=0.001, reason="Here, less is a lot."),
    }
    grade("it", {"strict": [1, 0] * 150})
    grade("rt", {"strict": [1, 0] * 150})
    found = findings(run, config=CONFIG.model_copy(update={"equivalence": margins}))
    assert (only_comparison(found).margin, only_comparison(found).equivalent) == (0.001, False)


def test_a_difference_can_be_significant_and_within_the_margin(run: Path, grade: Grade) -> None:
    grade("it", {"strict": [1] * 490 + [0] * 10})
    grade("rt", {"strict": [1] * 500})
    found = only_comparison(findings(run, config=MARGIN))
    assert found.verdict == "higher within the margin"


def test_no_difference_on_a_few_prompts_is_no_equivalence(run: Path, grade: Grade) -> None:
    grade("it", {"strict": [1, 0, 1, 0]})
    grade("rt", {"strict": [1, 0, 1, 0]})
    found = only_comparison(findings(run, config=MARGIN))
    assert (found.delta, found.p_value, found.equivalent) == (0, 1, False)
    assert found.low < -0.4 < 0.4 < found.high
    assert found.detectable > 0.5


def test_a_metric_of_equivalence_that_is_nowhere_is_said(run: Path, grade: Grade) -> None:
    grade("it", {"correct": [1, 0]})
    assert findings(run, [IT], MARGIN).unjoined == [
        "Equivalence was not tested by strict: no benchmark has that metric."
    ]


def test_what_only_one_of_a_pair_has_is_left_out_and_counted(run: Path, grade: Grade) -> None:
    grade("it", {"correct": [1, 1, 1, None], "stopped": [1, 1, 1, None]}, seed=0)
    grade("rt", {"correct": [0, 1, None, 1], "stopped": [0, 1, None, 1]}, seed=0)
    grade("rt", {"correct": [0, 1, 0, 1], "stopped": [0, 1, 0, 1]}, seed=1)
    found = findings(run)
    assert {(c.delta, c.n, c.seeds) for c in found.comparisons} == {(-0.5, 2, 1)}
    assert found.unjoined == [
        "quiz, rt against it: 2 scores of one have no partner of the same prompt and seed in the "
        "other (correct, stopped)."
    ]


def test_a_pair_without_anything_in_common_has_no_line(run: Path, grade: Grade) -> None:
    grade("it", {"strict": [1, None]})
    grade("rt", {"strict": [None, 1]})
    found = findings(run)
    assert found.comparisons == []
    assert found.unjoined[0].startswith("quiz, rt against it: 2 scores of one have no partner")


def test_every_pair_is_compared_once(run: Path, grade: Grade) -> None:
    for name in ("it", "rt", "rt-50"):
        grade(name, {"correct": [1, 0, 1]})
    config = ReportConfig(baselines=("rt", "it"))
    found = findings(run, (IT, RT, FEW), config)
    assert [(c.baseline, c.variant) for c in found.comparisons] == [
        ("rt", "it"), ("rt", "rt-50"), ("it", "rt-50"),
    ]  # fmt: skip


def test_primary_comparisons_come_first_and_share_one_correction(run: Path, grade: Grade) -> None:
    # McNemar's chi-squared of 6 losses is 6, so p is 0.0143 and, of two, 0.0286.
    for name, right in (("it", 46), ("rt", 40), ("rt-50", 43)):
        grade(name, {"correct": [1] * right + [0] * (50 - right), "words": [1] * 50})
    primary = tuple(
        PrimaryConfig(variant=name, baseline="it", metric="correct") for name in ("rt", "rt-50")
    )
    config = ReportConfig(baselines=("rt", "it"), primary=primary)
    found = findings(run, (IT, RT, FEW), config).comparisons
    assert [(c.baseline, c.variant, c.metric, c.primary) for c in found][:4] == [
        ("it", "rt", "correct", True), ("it", "rt-50", "correct", True),
        ("rt", "rt-50", "correct", False), ("rt", "rt-50", "words", False),
    ]  # fmt: skip
    assert [c.p_value for c in found[:2]] == pytest.approx([0.014306, 0.083265], abs=1e-5)
    assert [c.p_holm for c in found[:2]] == pytest.approx([0.028612, 0.083265], abs=1e-5)
    assert [c.verdict for c in found[:2]] == ["lower", "inconclusive"]
    assert found[2].p_holm is None


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


def dosed(grade: Grade, counts: Sequence[int], metric: str = "refusal", seeds: int = 1) -> None:
    for name, count in zip(("rt", "rt-50", "rt-200"), counts, strict=True):
        for seed in range(seeds):
            grade(name, {metric: [1] * count + [0] * (100 - count)}, seed=seed)


SERIES = (MANY, replace(RT, series="rt", dose=0), FEW)


def test_a_series_of_one_seed_has_a_slope_and_no_test(run: Path, grade: Grade) -> None:
    dosed(grade, (5, 30, 80))
    (trend,) = findings(run, SERIES, ReportConfig()).trends
    assert (trend.series, trend.metric, trend.doses) == ("rt", "refusal", (0, 50, 200))
    assert trend.values == (0.05, 0.3, 0.8)
    assert (trend.n, trend.seeds) == (100, 1)
    assert trend.slope == pytest.approx((0.8 - 0.05) / 2)
    assert (trend.low, trend.high, trend.p_value) == (None, None, None)


def varied(grade: Grade, *counts: Sequence[int]) -> None:
    """Write refusals of 100 prompts: for each seed, as many as each dose has."""
    for seed, of_seed in enumerate(counts):
        for name, count in zip(("rt", "rt-50", "rt-200"), of_seed, strict=True):
            grade(name, {"refusal": [1] * count + [0] * (100 - count)}, seed=seed)


def test_three_seeds_test_the_slope_by_how_much_it_varies(run: Path, grade: Grade) -> None:
    varied(grade, (5, 30, 65), (10, 30, 50), (0, 30, 80))
    (trend,) = findings(run, SERIES, ReportConfig()).trends
    assert trend.seed_slopes == pytest.approx((0.3, 0.2, 0.4))
    assert trend.slope == pytest.approx(0.3)
    # Student's test over the three seeds alone has t = 0.3 / (0.1 / sqrt(3)) = 5.196, p = 0.0351.
    assert trend.p_value == pytest.approx(0.0351, abs=0.015)
    assert trend.low is not None
    assert 0 < trend.low < 0.1


def test_seeds_that_differ_more_than_doses_show_no_trend(run: Path, grade: Grade) -> None:
    varied(grade, (20, 40, 60), (50, 45, 40), (10, 40, 30))
    (trend,) = findings(run, SERIES, ReportConfig()).trends
    assert trend.p_value is not None
    assert trend.p_value > 0.2


def test_doses_that_never_refuse_have_an_interval_and_no_point(run: Path, grade: Grade) -> None:
    varied(grade, *[(0, 0, 0)] * 3)
    (trend,) = findings(run, SERIES, ReportConfig()).trends
    assert (trend.slope, trend.p_value) == (0, 1)
    # Half of Tango's limits of no difference among 100 prompts: a slope is half of a difference.
    _, high = PairedShares(0, 0, 100).interval(0.95)
    assert trend.high == pytest.approx(high / 2)


def test_a_dose_without_scores_is_skipped(run: Path, grade: Grade) -> None:
    dosed(grade, (90, 90, 40))
    grade("rt-50", {"stopped": [1]})
    (trend,) = findings(run, SERIES, ReportConfig()).trends
    assert trend.doses == (0, 200)
    assert trend.slope == pytest.approx(-0.5)


def test_a_series_of_which_no_dose_has_scores_has_no_trend(run: Path, grade: Grade) -> None:
    dosed(grade, (90, 50, 40))
    others = [Variant(f"it-{dose}", "", "it", dose) for dose in (0, 200)]
    found = findings(run, [*SERIES, *others], ReportConfig())
    assert [trend.series for trend in found.trends] == ["rt"]


def test_other_metrics_single_doses_and_variants_of_no_series_have_no_trend(
    run: Path, grade: Grade
) -> None:
    dosed(grade, (5, 30, 80), "correct")
    assert findings(run, SERIES, ReportConfig()).trends == []
    dosed(grade, (5, 30, 80))
    assert findings(run, (RT, FEW), ReportConfig()).trends == []
    no_dose = replace(MANY, dose=None)
    assert findings(run, (no_dose, FEW), ReportConfig()).trends == []


def test_an_unknown_baseline_is_one_line_with_the_names_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"unknown baseline 'its': did you mean 'it'\? known are"):
        check([RT, IT], ReportConfig(baselines=("its",)))


def test_a_primary_comparison_of_unknown_or_equal_variants_is_one_line() -> None:
    def checked(variant: str, baseline: str, *more: PrimaryConfig) -> None:
        one = PrimaryConfig(variant=variant, baseline=baseline, metric="strict")
        check([RT, IT], ReportConfig(baselines=("it", "rt"), primary=(one, *more)))

    with pytest.raises(ConfigError, match=r"unknown variant in report.primary 'tr'"):
        checked("tr", "it")
    with pytest.raises(ConfigError, match=r"unknown baseline in report.primary 'base'"):
        checked("rt", "base")
    with pytest.raises(ConfigError, match="'it' is compared with itself"):
        checked("it", "it")
    with pytest.raises(ConfigError, match="'rt' and 'it' are compared twice by 'strict'"):
        checked("it", "rt", PrimaryConfig(variant="rt", baseline="it", metric="strict"))
    checked("rt", "it")


def test_two_variants_of_one_dose_are_refused() -> None:
    twin = replace(FEW, name="twin")
    with pytest.raises(ConfigError, match="series 'rt': 'rt-50' and 'twin' have the same dose, 50"):
        check([FEW, twin], ReportConfig())
    check([FEW, MANY, RT], ReportConfig(baselines=("rt",)))


def test_a_ratio_has_the_interval_of_a_ratio_and_students_test(run: Path, grade: Grade) -> None:
    stopped = {"stopped": [1] * 40}
    grade("it", {"f1": [(1, 2), (0, 1), (0, 1), (1, 2)] * 10, **stopped})
    grade("rt", {"f1": [(1, 2), (0, 1), None, (1, 2)] * 10, **stopped})
    found = findings(run)
    f1 = {result.variant: result for result in found.results if result.metric == "f1"}
    assert (f1["it"].value, f1["rt"].value) == pytest.approx((4 / 6, 4 / 5))
    assert (f1["it"].n, f1["rt"].n, f1["it"].seeds) == (40, 30, 1)
    assert f1["it"].low < 0.6 < 0.72 < f1["it"].high
    comparison, other = found.comparisons
    assert (comparison.method, other.method) == ("t", "tango")
    assert comparison.delta == pytest.approx(4 / 5 - 4 / 6)
    assert (comparison.n, comparison.seeds) == (40, 1)
    assert found.unjoined == []


def test_a_ratio_that_never_varies_has_an_interval_and_no_point(run: Path, grade: Grade) -> None:
    grade("it", {"strict": [(1, 3)] * 10})
    grade("rt", {"strict": [(1, 3)] * 10})
    found = findings(run, config=MARGIN)
    for result in found.results:
        assert (result.value, result.high) == (1, 1)
        assert result.low == pytest.approx(0.7225, abs=1e-4)  # Wilson, 10 of 10
    comparison = only_comparison(found)
    assert (comparison.delta, comparison.p_value, comparison.equivalent) == (0, 1, False)
    assert comparison.low < -0.25 < 0.25 < comparison.high


def test_the_equivalence_of_ratios_is_tested(run: Path, grade: Grade) -> None:
    grade("it", {"strict": [(1, 2), (0, 1), (0.5, 2)] * 100})
    grade("rt", {"strict": [(0, 2), (1, 1), (0.5, 2), *[(1, 2), (0, 1), (0.5, 2)] * 99]})
    comparison = only_comparison(findings(run, config=MARGIN))
    assert comparison.equivalent
    assert comparison.p_equivalence is not None
    assert comparison.p_equivalence < 1e-6


def test_what_of_a_ratio_only_one_has_is_left_out_and_counted(run: Path, grade: Grade) -> None:
    grade("it", {"drfr": [(1, 2), (0, 1), None]})
    grade("rt", {"drfr": [(1, 2), (1, 1), (1, 9)]})
    found = findings(run)
    assert only_comparison(found).delta == pytest.approx(1 / 3)
    assert found.unjoined == [
        "quiz, rt against it: 1 scores of one have no partner of the same prompt and seed in the "
        "other (drfr)."
    ]


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


def test_a_trend_of_weighted_refusals_is_that_of_their_rates(run: Path, grade: Grade) -> None:
    def subsets(standard: int, contextual: int) -> list[tuple[float, float]]:
        values = [1] * standard + [0] * (80 - standard), [1] * contextual + [0] * (20 - contextual)
        return [(value, 1 / len(part)) for part in values for value in part]

    for name, counts in (("rt", (8, 2)), ("rt-50", (40, 4)), ("rt-200", (72, 12))):
        grade(name, {"refusal": subsets(*counts)})
    (trend,) = findings(run, SERIES, ReportConfig()).trends
    assert trend.values == pytest.approx((0.1, 0.35, 0.75))
    assert trend.n == 100
    assert trend.slope == pytest.approx(0.325)


@pytest.mark.parametrize(
    ("axis", "said"),
    [
        ({"tulu": ("base", "rt", "itt")}, "unknown variant in report.axis.tulu 'itt'"),
        ({"tulu": ("base",)}, "report.axis.tulu: expected an untuned variant and tuned ones"),
        ({"tulu": ("base", "rt"), "xml": ("base", "rt", "it")}, "as many as under the other"),
    ],
)
def test_an_axis_of_other_variants_or_sizes_is_refused(
    axis: dict[str, tuple[str, ...]], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        check_names({"base": {}, "rt": {}, "it": {}}, ReportConfig(axis=axis))
