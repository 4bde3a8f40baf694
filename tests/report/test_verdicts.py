from dataclasses import replace

import numpy as np

from response_tuning.report.joined import BenchmarkScores, Training, Variant
from response_tuning.report.tables import Comparison
from response_tuning.report.verdicts import decided, headlines, twins
from response_tuning.report_config import PrimaryConfig, ReportConfig

ONE = Training("response-tuning", ("instruction-tuning",), "abc", 1000, 11_094, 32)
RT = Variant("rt", "", training=(ONE,))
IT = Variant("it", "", training=(ONE._replace(objective="instruction-tuning", twins=()),))
CONFIG = ReportConfig(
    baselines=("it",), primary=(PrimaryConfig(variant="rt", baseline="it", metric="strict"),)
)


def compared(benchmark: str, p_value: float, *, equivalent: bool | None = None) -> Comparison:
    return Comparison(
        "it", "rt", benchmark, "strict", -0.01, -0.02, 0.01, p_value, 100, 1, "tango",
        0.03, 0.5, equivalent, 100, None, (-0.01,), 0.02,
    )  # fmt: skip


def test_a_benchmark_without_the_metric_is_named() -> None:
    class Reported:
        config = CONFIG
        variants = (RT, IT)
        benchmarks = tuple(
            BenchmarkScores(
                name, ("rt", "it"), (0,), ("x",), ("",), ("x",), {metric: np.ones((2, 1, 1))}
            )
            for name, metric in (("a", "strict"), ("mine", "right"), ("yours", "right"))
        )

    (found,) = headlines([compared("a", 0.5)], Reported(), {})
    assert found.outside == ["mine", "yours"]
    assert "This leaves out mine and yours, which have no strict." in found.sentences


def test_a_primary_comparison_needs_more_than_one_p_value_of_several() -> None:
    found = decided([compared("a", 0.03), compared("b", 0.02), compared("c", 0.9)], CONFIG)
    assert [c.p_holm for c in found] == [0.06, 0.06, 0.9]
    assert [c.verdict for c in found] == ["inconclusive"] * 3


def test_other_comparisons_keep_their_own_p_value() -> None:
    (found,) = decided([compared("a", 0.03)], ReportConfig(baselines=("it",)))
    assert (found.primary, found.p_holm, found.verdict) == (False, None, "lower")


def test_each_comparison_has_one_verdict() -> None:
    config = ReportConfig()
    verdicts = [
        decided([compared("a", p, equivalent=equivalent)], config)[0].verdict
        for p, equivalent in ((0.01, True), (0.5, True), (0.01, False), (0.5, False))
    ]
    assert verdicts == ["lower within the margin", "equivalent", "lower", "inconclusive"]


def test_arms_are_twins_if_they_were_matched_and_their_counts_agree() -> None:
    assert twins(RT, IT) == (
        "rt and it are twins: both are tuned on the same 1,000 examples, 11,094 supervised tokens "
        "and 32 steps, matched row by row."
    )
    undeclared = replace(RT, training=(ONE._replace(twins=()),))
    assert twins(undeclared, IT) == (
        "rt and it are not declared twins; both are tuned on the same file, with 1,000 examples, "
        "11,094 supervised tokens and 32 steps."
    )


def test_arms_that_were_tuned_on_other_things_are_no_twins() -> None:
    fewer = replace(RT, training=(ONE._replace(kept=990, supervised_tokens=10_999),))
    assert twins(fewer, IT) == (
        "rt and it are no twins: they are tuned on 990 and 1,000 examples, 10,999 and 11,094 "
        "supervised tokens."
    )
    other = replace(RT, training=(ONE._replace(examples="def"),))
    assert twins(other, IT) == "rt and it are no twins: they are tuned on different examples."
    alone = "rt and base are no twins: base has no tuned model here."
    assert twins(RT, Variant("base", "")) == alone


def test_one_seed_that_differs_is_enough_to_be_no_twins() -> None:
    rt = replace(RT, training=(ONE, ONE._replace(steps=33)))
    it = replace(IT, training=IT.training * 2)
    assert twins(rt, it) == "rt and it are no twins: they are tuned on 32 to 33 and 32 steps."
