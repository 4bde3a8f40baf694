import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from response_tuning.report.estimates import Quantity, estimated
from response_tuning.report.reading import read_scores
from response_tuning.report.statistics import Estimate
from response_tuning.report_config import ReportConfig

Grade = Callable[..., None]
Weighted = Sequence[float | tuple[float, float] | None]

CONFIG = ReportConfig(resamples=500)


def estimate(
    run: Path, quantities: Sequence[Quantity], others: Sequence[str] = ()
) -> list[Estimate]:
    named = [name for q in quantities for name in (q.variant, q.baseline) if name]
    (quiz,), _ = read_scores(run, [*dict.fromkeys([*named, *others])])
    found = estimated(quiz, quantities, CONFIG)
    return [found[quantity] for quantity in quantities]


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
    found = estimate(run, [Quantity(metric, "rt") for metric in metrics], ["it"])
    assert [one.value for one in found] == pytest.approx([3 / 4, 3 / 5, 2 * 3 / (2 * 3 + 2 + 1)])
    assert [one.n for one in found] == [4, 5, 6]


def test_precision_and_f1_are_those_of_scikit_learn(run: Path, grade: Grade) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    answers = {"rt": judged(1, 0.7), "it": judged(2, 0.5)}
    for name, (unsafe, refused) in answers.items():
        grade(name, detection(unsafe, refused))
    metrics = ("precision", "recall", "f1", "accuracy")
    for name, both in answers.items():
        found = estimate(run, [Quantity(m, name) for m in metrics], [*answers])
        truth = [getattr(sklearn, f"{metric}_score")(*both) for metric in metrics]
        assert [one.value for one in found] == pytest.approx(truth)
    differences = [Quantity(metric, "rt", "it") for metric in metrics]
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
    (found,) = estimate(run, [Quantity("refusal", "rt")])
    assert found.value == pytest.approx((30 / 40 + 2 / 10) / 2)
    assert found.n == 50
    assert found.effective == pytest.approx(2**2 / (1 / 40 + 1 / 10))
    assert found.low < found.value < found.high


def test_seeds_are_pooled_prompt_by_prompt(run: Path, grade: Grade) -> None:
    unsafe = [True, True, False, False]
    refused = ([True, False, True, False], [True, True, False, False])
    for seed in range(2):
        grade("rt", detection(unsafe, refused[seed]), seed=seed)
    precision, f1 = estimate(run, [Quantity("precision", "rt"), Quantity("f1", "rt")])
    assert precision.value == pytest.approx(3 / 4)
    assert f1.value == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert (precision.n, f1.n) == (3, 3)


def test_precision_is_compared_though_the_two_refuse_different_prompts(
    run: Path, grade: Grade
) -> None:
    unsafe = [True] * 50 + [False] * 50
    grade("rt", detection(unsafe, [True] * 40 + [False] * 60))
    grade("it", detection(unsafe, [False] * 40 + [True] * 30 + [False] * 30))
    (found,) = estimate(run, [Quantity("precision", "rt", "it")])
    assert found.value == pytest.approx(1 - 10 / 30)
    assert found.n == 70
    assert 0.4 < found.low < found.value < found.high < 0.9
    assert found.p_value == pytest.approx(2 / 501)


def test_a_difference_of_ratios_is_on_prompts_and_seeds_that_both_have(
    run: Path, grade: Grade
) -> None:
    grade("rt", {"drfr": [(1, 3), (0, 1), (1, 5)]})
    grade("rt", {"drfr": [(0, 3), (0, 1), (0, 5)]}, seed=1)
    grade("it", {"drfr": [(0, 3), (1, 1), None]})
    difference = Quantity("drfr", "rt", "it")
    (found,) = estimate(run, [difference])
    assert (found.value, found.n) == (3 / 4 - 1 / 4, 2)
    (quiz,), _ = read_scores(run, ["rt", "it"])
    assert (difference.seeds(quiz), Quantity("drfr", "rt").seeds(quiz)) == (1, 2)


def test_a_ratio_of_nothing_has_no_estimate(run: Path, grade: Grade) -> None:
    unsafe = [True, False, True]
    grade("rt", detection(unsafe, [False] * 3))
    grade("it", detection(unsafe, [True, True, False]))
    grade("urial", detection(unsafe, [True, False, False]))
    (quiz,), _ = read_scores(run, ["rt", "it", "urial"])
    asked = [Quantity("precision", "rt"), Quantity("precision", "it", "rt")]
    assert estimated(quiz, asked, CONFIG) == {}


def test_the_numbers_of_a_ratio_do_not_depend_on_the_company_of_variants(
    run: Path, grade: Grade
) -> None:
    for place, name in enumerate(("rt", "it", "urial")):
        grade(name, detection(*judged(place, 0.6, n=60)))
    asked = [Quantity(m, "rt", b) for m in ("precision", "f1") for b in (None, "it")]
    assert estimate(run, asked) == estimate(run, asked, ["urial"])


def test_variants_share_their_resamples_whatever_they_refuse(run: Path, grade: Grade) -> None:
    # The two differ in no hit and no false alarm but one, so that only shared draws see it.
    unsafe, refused = judged(5, 0.6)
    first = refused.index(True)
    grade("rt", detection(unsafe, refused))
    grade("it", detection(unsafe, [r and at != first for at, r in enumerate(refused)]))
    one, other, difference = estimate(
        run, [Quantity("f1", "rt"), Quantity("f1", "it"), Quantity("f1", "rt", "it")]
    )
    assert difference.high - difference.low < 0.2 * (one.high - one.low)
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.02)
