import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from response_tuning.metrics import Display
from response_tuning.report.estimates import Contrast, Estimate, difference, estimated, mean, slope
from response_tuning.report.reading import read_scores

Grade = Callable[..., None]
Weighted = Sequence[float | tuple[float, float] | None]


def estimate(
    run: Path, contrasts: Sequence[Contrast], others: Sequence[str] = ()
) -> list[Estimate]:
    named = [name for contrast in contrasts for name in contrast.variants]
    (quiz,), _ = read_scores(run, [*dict.fromkeys([*named, *others])])
    found = [estimated(quiz, contrast) for contrast in contrasts]
    return [one for one in found if one is not None]


def limits(found: Estimate) -> tuple[float, float]:
    return found.evidence.interval(0.95)


def detection(unsafe: Sequence[bool], refused: Sequence[bool]) -> dict[str, Weighted]:
    """Score the refusals of unsafe prompts as a detector is: precision, recall and F1."""
    pairs = list(zip(unsafe, refused, strict=True))
    return {
        "precision": [float(u) if r else None for u, r in pairs],
        "recall": [float(r) if u else None for u, r in pairs],
        "f1": [(1, 2) if u and r else (0, 1) if u or r else None for u, r in pairs],
        "accuracy": [float(u == r) for u, r in pairs],
    }


def judged(seed: int, chance: float, n: int = 200) -> tuple[list[bool], list[bool]]:
    draw = random.Random(seed)
    unsafe = [place % 2 == 0 for place in range(n)]
    return unsafe, [draw.random() < (chance if u else 0.2) for u in unsafe]


def test_precision_and_f1_are_those_of_the_formulas(run: Path, grade: Grade) -> None:
    # 3 hits, 2 misses, 1 false alarm, 4 correct rejections.
    unsafe = [True] * 5 + [False] * 5
    refused = [True] * 3 + [False] * 2 + [True] + [False] * 4
    grade("rt", detection(unsafe, refused))
    grade("it", detection(unsafe, [True] * 10))
    metrics = ("precision", "recall", "f1")
    found = estimate(run, [mean(metric, "rt") for metric in metrics], ["it"])
    assert [one.value for one in found] == pytest.approx([3 / 4, 3 / 5, 2 * 3 / (2 * 3 + 2 + 1)])
    assert [one.n for one in found] == [4, 5, 6]


def test_the_interval_of_a_mean_does_not_depend_on_the_unit(run: Path, grade: Grade) -> None:
    draw = random.Random(0)
    shares = [draw.random() for _ in range(50)]
    grade("rt", {"share": shares, "stars": [1 + 4 * share for share in shares]})
    display = {"quiz": Display(scales={"share": (0, 1), "stars": (1, 5)})}
    (quiz,), _ = read_scores(run, ["rt"], benchmarks=display)
    share, stars = (estimated(quiz, mean(metric, "rt")) for metric in ("share", "stars"))
    assert share is not None and stars is not None
    assert limits(stars) == pytest.approx([1 + 4 * end for end in limits(share)])
    low, high = limits(share)
    assert high - low == pytest.approx(4 * np.std(shares) / np.sqrt(50), rel=0.1)


def test_precision_and_f1_are_those_of_scikit_learn(run: Path, grade: Grade) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    answers = {"rt": judged(1, 0.7), "it": judged(2, 0.5)}
    for name, (unsafe, refused) in answers.items():
        grade(name, detection(unsafe, refused))
    metrics = ("precision", "recall", "f1", "accuracy")
    for name, both in answers.items():
        found = estimate(run, [mean(m, name) for m in metrics], [*answers])
        truth = [getattr(sklearn, f"{metric}_score")(*both) for metric in metrics]
        assert [one.value for one in found] == pytest.approx(truth)
    differences = [difference(metric, "rt", "it") for metric in metrics]
    truth = [
        getattr(sklearn, f"{metric}_score")(*answers["rt"])
        - getattr(sklearn, f"{metric}_score")(*answers["it"])
        for metric in metrics
    ]
    assert [one.value for one in estimate(run, differences)] == pytest.approx(truth)


def test_weights_of_1_over_the_size_make_a_mean_of_two_subsets(run: Path, grade: Grade) -> None:
    standard, contextual = [1.0] * 30 + [0.0] * 10, [1.0] * 2 + [0.0] * 8
    weighted = [(value, 1 / 40) for value in standard] + [(value, 1 / 10) for value in contextual]
    grade("rt", {"refusal": weighted})
    (found,) = estimate(run, [mean("refusal", "rt")])
    assert found.value == pytest.approx((30 / 40 + 2 / 10) / 2)
    assert found.n == 50
    low, high = limits(found)
    assert low < found.value < high
    # The mean square distance from the mean of both, 0.475, in each subset, over its size.
    error = ((0.1875 + 0.275**2) / 40 + (0.16 + 0.275**2) / 10) ** 0.5 / 2
    assert (high - low) / (2 * 1.96) == pytest.approx(error, rel=0.05)


def test_seeds_are_pooled_prompt_by_prompt(run: Path, grade: Grade) -> None:
    unsafe = [True, True, False, False]
    refused = ([True, False, True, False], [True, True, False, False])
    for seed in range(2):
        grade("rt", detection(unsafe, refused[seed]), seed=seed)
    precision, f1 = estimate(run, [mean("precision", "rt"), mean("f1", "rt")])
    assert precision.value == pytest.approx(3 / 4)
    assert f1.value == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert (precision.n, f1.n) == (3, 3)


def test_precision_is_compared_though_the_two_refuse_different_prompts(
    run: Path, grade: Grade
) -> None:
    unsafe = [True] * 50 + [False] * 50
    grade("rt", detection(unsafe, [True] * 40 + [False] * 60))
    grade("it", detection(unsafe, [False] * 40 + [True] * 30 + [False] * 30))
    (found,) = estimate(run, [difference("precision", "rt", "it")])
    assert found.value == pytest.approx(1 - 10 / 30)
    assert found.n == 70
    low, high = limits(found)
    assert 0.4 < low < found.value < high < 0.9
    assert found.evidence.p_value(0.0) < 0.001


def test_a_difference_of_ratios_is_on_prompts_and_seeds_that_both_have(
    run: Path, grade: Grade
) -> None:
    grade("rt", {"drfr": [(1, 3), (0, 1), (1, 5)]})
    grade("rt", {"drfr": [(0, 3), (0, 1), (0, 5)]}, seed=1)
    grade("it", {"drfr": [(0, 3), (1, 1), None]})
    both, alone = estimate(run, [difference("drfr", "rt", "it"), mean("drfr", "rt")])
    assert (both.value, both.n, both.seeds) == (3 / 4 - 1 / 4, 2, 1)
    assert alone.seeds == 2
    assert alone.by_seed == pytest.approx((8 / 9, 0))
    assert both.by_seed == (0.5,)


def test_a_ratio_of_nothing_has_no_estimate(run: Path, grade: Grade) -> None:
    unsafe = [True, False, True]
    grade("rt", detection(unsafe, [False] * 3))
    grade("it", detection(unsafe, [True, True, False]))
    grade("urial", detection(unsafe, [True, False, False]))
    (quiz,), _ = read_scores(run, ["rt", "it", "urial"])
    asked = [mean("precision", "rt"), difference("precision", "it", "rt")]
    assert [estimated(quiz, contrast) for contrast in asked] == [None, None]


def test_the_numbers_of_a_ratio_do_not_depend_on_the_company_of_variants(
    run: Path, grade: Grade
) -> None:
    for place, name in enumerate(("rt", "it", "urial")):
        grade(name, detection(*judged(place, 0.6, n=60)))
    asked = [
        contrast
        for metric in ("precision", "f1")
        for contrast in (mean(metric, "rt"), difference(metric, "rt", "it"))
    ]
    assert estimate(run, asked) == estimate(run, asked, ["urial"])


def test_ratios_of_the_same_prompts_are_compared_as_pairs(run: Path, grade: Grade) -> None:
    # The two differ in no hit and no false alarm but one, which only pairs can show.
    unsafe, refused = judged(5, 0.6)
    first = refused.index(True)
    grade("rt", detection(unsafe, refused))
    grade("it", detection(unsafe, [r and at != first for at, r in enumerate(refused)]))
    one, other, change = map(
        limits,
        estimate(run, [mean("f1", "rt"), mean("f1", "it"), difference("f1", "rt", "it")]),
    )
    assert change[1] - change[0] < 0.2 * (one[1] - one[0])
    assert one == pytest.approx(other, abs=0.02)


def test_prompts_that_count_for_nothing_do_not_make_a_ratio_surer(run: Path, grade: Grade) -> None:
    few = {"precision": [1, 0, 1, 1], "stopped": [1] * 4}
    grade("rt", few)
    (alone,) = estimate(run, [mean("precision", "rt")])
    grade("rt", {"precision": [*few["precision"], *[None] * 40], "stopped": [1] * 44})
    grade("it", {"precision": [1] * 44, "stopped": [1] * 44})
    (among,) = estimate(run, [mean("precision", "rt")], ["it"])
    assert (among.n, among.clusters) == (4, 4)
    assert limits(among)[1] - limits(among)[0] > 0.9 * (limits(alone)[1] - limits(alone)[0])


def test_the_slope_is_that_of_least_squares(run: Path, grade: Grade) -> None:
    for name, hits in (("a", 1), ("b", 4), ("c", 3), ("d", 8)):
        grade(name, {"refusal": [1] * hits + [0] * (10 - hits)})
    (found,) = estimate(run, [slope("refusal", ["a", "b", "c", "d"])])
    assert found.value == pytest.approx(np.polyfit(range(4), [0.1, 0.4, 0.3, 0.8], 1)[0])
    assert found.evidence.method == "t"
