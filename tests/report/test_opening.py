import math
from typing import Any

import pytest

from response_tuning.report.joined import Training, Variant
from response_tuning.report.opening import (
    EXPLORATORY,
    Subject,
    finding,
    hedge,
    numbers,
    subject_of,
)
from response_tuning.report.tables import Comparison, Result
from response_tuning.report.verdicts import Headline
from response_tuning.unread import Unread

ALL = {(benchmark, "strict") for benchmark in "abcd"}


def compared(benchmark: str, delta: float, verdict: str, **other: Any) -> Comparison:
    values: dict[str, Any] = {
        "baseline": "it", "variant": "rt", "metric": "strict", "low": delta - 0.01,
        "high": delta + 0.01, "p_value": 0.5, "n": 200, "seeds": 3, "method": "t", "margin": 0.03,
        "p_equivalence": 0.5, "equivalent": False, "clusters": 200, "seed_sd": None,
        "seed_deltas": (), "detectable": 0.1,
    }  # fmt: skip
    return Comparison(benchmark=benchmark, delta=delta, verdict=verdict, **values | other)


def headline(
    *comparisons: Comparison,
    baseline: str = "it",
    lacking: tuple[str, ...] = (),
    outside: tuple[str, ...] = (),
) -> Any:
    return Headline("rt", baseline, "strict", [*comparisons], [], [*lacking], [*outside])


def said(*found: Headline) -> list[str]:
    return ["".join(words.text for words in sentence) for sentence in finding(found, ALL)]


def result(benchmark: str, value: float, variant: str = "rt") -> Result:
    low, high = value - 0.05, value + 0.05
    return Result(variant, benchmark, "strict", value, low, high, 200, 3, 200, None, ())


def test_one_verdict_on_all_benchmarks_is_one_phrase_with_its_range() -> None:
    higher = headline(
        compared("a", 0.61, "higher"), compared("b", 0.115, "higher"), baseline="stop"
    )
    lower = headline(*(compared(name, -0.145, "lower") for name in "abc"))
    assert said(higher, lower) == [
        "By strict, rt is higher than stop on both benchmarks (by 11.5 to 61.0 points), and lower "
        "than it on all 3 benchmarks (by 14.5 points)."
    ]


def test_every_benchmark_is_covered_also_one_that_cannot_be_compared() -> None:
    mixed = headline(
        compared("a", 0.01, "equivalent", equivalent=True),
        compared("b", -0.2, "lower"),
        compared("c", -0.04, "inconclusive"),
        lacking=("d",),
    )
    assert said(mixed) == [
        "By strict, rt is equivalent to it within 3.0 points on a (+1.0 points), lower than it on "
        "b (by 20.0 points), not shown to differ from it on c (\N{MINUS SIGN}4.0 points), and not "
        "compared with it on d."
    ]


def test_where_a_benchmark_lacks_the_metric_the_others_are_named() -> None:
    both = headline(compared("a", 0.2, "higher"), compared("b", 0.3, "higher"), outside=("mine",))
    assert said(both) == ["By strict, rt is higher than it on a and b (by 20.0 to 30.0 points)."]


def test_a_difference_within_the_margin_says_both() -> None:
    both = headline(compared("a", 0.02, "higher within the margin", equivalent=True))
    assert said(both) == [
        "By strict, rt is higher than it, within the margin of 3.0 points, on a (by 2.0 points)."
    ]


def test_names_are_marked_in_the_sentence() -> None:
    (sentence,) = finding([headline(compared("a", 0.2, "higher"))], ALL)
    assert [words.text for words in sentence if words.is_name] == ["rt", "it"]


def test_without_a_primary_comparison_nothing_is_claimed() -> None:
    assert said() == [EXPLORATORY]
    assert hedge([]) == ""


@pytest.mark.parametrize(
    ("seeds", "words"),
    [(1, "One seed: no information on how much training varies"), (3, "3 seeds of training")],
)
def test_the_finding_says_what_it_rests_on(seeds: int, words: str) -> None:
    assert words in hedge([headline(compared("a", 0.2, "higher", seeds=seeds))])


def test_the_subject_is_that_of_the_first_primary_comparison_or_the_first_tuned_variant() -> None:
    tuned = (Training("response-tuning", (), "x", 1, 1, 1),)
    variants = [Variant("base", ""), Variant("it", ""), Variant("rt", "", training=tuned)]
    results = [result("a", 0.5, name) for name in ("base", "it", "rt")]
    found = [headline(), headline(baseline="stop")]
    assert subject_of(found, variants, results) == Subject("rt", "strict", ("it", "stop"))
    assert subject_of([], variants, results) == Subject("rt", "", ("base", "it"))


def test_numbers_are_those_of_the_first_benchmarks_whatever_they_are() -> None:
    subject = Subject("rt", "strict", ("it",))
    results = [result(name, 0.2 + place / 10) for place, name in enumerate("abcd")]
    results += [result("a", 0.9, "it")]
    metrics = dict.fromkeys("abcd", ("strict", "correct"))
    shown = numbers(subject, [], results, metrics, ALL, {})
    assert [one.of for one in shown] == [f"rt, strict on {name}" for name in "abc"]
    assert shown[0] == ("20.0", "%", "rt, strict on a", "15.0 to 25.0", "it 90.0", "")


def test_differences_fill_up_where_there_are_few_benchmarks() -> None:
    subject = Subject("rt", "strict", ("it",))
    found = [headline(compared("a", -0.2, "lower"))]
    shown = numbers(subject, found, [result("a", 0.5)], {"a": ("strict",)}, ALL, {})
    assert [(one.value, one.unit) for one in shown] == [
        ("50.0", "%"),
        ("\N{MINUS SIGN}20.0", "points"),
    ]
    assert shown[1].of == "rt minus it, strict on a"


def test_an_unknown_rate_is_no_number_and_says_how_many_replies_were_lost() -> None:
    unknown = {("rt", "a"): Unread(9, 20, 0.45)}
    results = [result("a", math.nan)]
    (shown,) = numbers(Subject("rt", "strict", ()), [], results, {"a": ("strict",)}, ALL, unknown)
    assert (shown.value, shown.unit, shown.interval) == ("n/a", "", "")
    assert shown.unread == "9 of 20 unread"
