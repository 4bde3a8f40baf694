from itertools import pairwise
from math import inf

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from response_tuning.report.intervals import (
    Constant,
    Evidence,
    PairedShares,
    Share,
    Student,
    detectable,
    p_equivalence,
)

KINDS: list[Evidence] = [
    Share(0.3, 40),
    Share(0.98, 50.5, df=7.3),
    Share(4.2, 60, ends=(1.0, 5.0)),
    PairedShares(7 / 21, 1 / 21, 21),
    PairedShares(0.02, 0.0, 50, df=11),
    PairedShares(0.0, 0.1, 40, largest=4.0),
    Student(1.5, 0.4, 9),
]


def test_wilsons_interval_is_that_of_the_textbook() -> None:
    # Newcombe (1998), Statistics in Medicine 17, 857-872, table I: 81/263, 15/148, 0/20, 1/29.
    assert Share(81 / 263, 263).interval(0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert Share(15 / 148, 148).interval(0.95) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert Share(0.0, 20).interval(0.95) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert Share(1 / 29, 29).interval(0.95) == pytest.approx((0.0061, 0.1718), abs=5e-5)


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (3, 10), (199, 200)])
def test_wilsons_interval_is_that_of_statsmodels(hits: int, n: int) -> None:
    expected = proportion_confint(hits, n, 0.05, "wilson")
    assert Share(hits / n, n).interval(0.95) == pytest.approx(expected)


def test_tangos_interval_is_that_of_the_literature() -> None:
    # Airway hyper-responsiveness before and after transplantation (Bentur et al. 2009), as
    # analysed by Fagerland, Lydersen and Laake (2014), Statistics in Medicine 33, 2850-2875.
    found = PairedShares(1 / 21, 7 / 21, 21)
    assert found.value == pytest.approx(-0.286, abs=5e-4)
    assert found.interval(0.95) == pytest.approx((-0.517, -0.026), abs=5e-4)
    assert found.p_value(0.0) == pytest.approx(0.034, abs=5e-4)


@pytest.mark.parametrize("truth", [-0.6, -0.1, 0.0, 0.2])
@pytest.mark.parametrize("lost", [0, 4])
def test_tangos_statistic_is_that_of_the_most_likely_shares_under_the_truth(
    truth: float, lost: int
) -> None:
    n, gained = 30, 3

    def unlikely(losing: float) -> float:
        gaining = losing + truth
        of_losses = lost * np.log(losing) if lost else 0.0
        of_others = (n - gained - lost) * np.log(1 - gaining - losing)
        return -float(gained * np.log(gaining) + of_losses + of_others)

    ends = max(1e-12, 1e-12 - truth), (1 - truth) / 2 - 1e-12
    losing = float(minimize_scalar(unlikely, bounds=ends, options={"xatol": 1e-12}).x)
    error = np.sqrt((2 * losing + truth - truth**2) / n)
    expected = abs((gained - lost) / n - truth) / error
    found = PairedShares(gained / n, lost / n, n)
    assert found._statistic(truth) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("gained", "lost"), [(2, 10), (5, 5), (30, 12)])
def test_at_a_difference_of_0_the_test_is_mcnemars(gained: int, lost: int) -> None:
    table = [[20, gained], [lost, 20]]
    expected = mcnemar(table, exact=False, correction=False).pvalue
    n = 40 + gained + lost
    assert PairedShares(gained / n, lost / n, n).p_value(0.0) == pytest.approx(expected)


@pytest.mark.parametrize("evidence", KINDS)
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_an_interval_holds_what_its_test_does_not_reject(
    evidence: Evidence, confidence: float
) -> None:
    low, high = evidence.interval(confidence)
    assert low <= evidence.value <= high
    width = high - low
    for end, inside in ((low, 1), (high, -1)):
        assert evidence.p_value(end + inside * width / 100) > 1 - confidence
        if end not in (0.0, 1.0):  # nothing lies beyond the ends of a scale
            assert evidence.p_value(end) == pytest.approx(1 - confidence, abs=1e-6)
            assert evidence.p_value(end - inside * width / 100) < 1 - confidence


@pytest.mark.parametrize("evidence", KINDS)
def test_equivalence_is_shown_exactly_where_the_interval_lies_inside_the_margin(
    evidence: Evidence,
) -> None:
    low, high = evidence.interval(0.95)
    needed = max(-low, high)
    assert p_equivalence(evidence, needed * 1.001) < 0.05 < p_equivalence(evidence, needed * 0.999)
    assert p_equivalence(evidence, abs(evidence.value) / 2) == 1.0


def test_few_prompts_without_a_difference_do_not_show_equivalence_and_many_do() -> None:
    few, many = PairedShares(0, 0, 10), PairedShares(0, 0, 1000)
    assert (few.p_value(0.0), many.p_value(0.0)) == (1, 1)
    assert p_equivalence(few, 0.1) > 0.2
    assert p_equivalence(many, 0.1) < 1e-6


def test_nothing_at_an_end_is_certain() -> None:
    for n in (3, 10, 100):
        assert Share(1.0, n).interval(0.95)[0] < 1
        assert PairedShares(1.0, 0.0, n).interval(0.95)[0] < 1
        assert PairedShares(0.0, 0.0, n).interval(0.95)[1] > 0


def test_fewer_degrees_of_freedom_make_wider_intervals() -> None:
    for kind in (Share(0.5, 40), PairedShares(0.2, 0.1, 40)):
        widths = []
        for df in (inf, 20, 2):
            low, high = type(kind)(**{**kind.__dict__, "df": df}).interval(0.95)
            widths.append(high - low)
        assert all(one < other for one, other in pairwise(widths))


def showing(evidence: Evidence) -> float:
    return detectable(evidence, evidence.interval(0.95), 0.95)


def test_the_detectable_difference_has_the_power_that_is_promised() -> None:
    # The textbook's (1.96 + 0.84) standard errors.
    assert showing(Student(0.0, 1.0, inf)) == pytest.approx(2.802, abs=1e-3)
    draw = np.random.default_rng(1)
    n, effect = 200, showing(PairedShares(0.1, 0.1, 200))
    gained = draw.binomial(n, 0.1 + effect / 2, size=4000)
    lost = draw.binomial(n - gained, (0.1 - effect / 2) / (0.9 - effect / 2))
    shown = [
        PairedShares(a / n, b / n, n).p_value(0.0) < 0.05
        for a, b in zip(gained[:1000], lost[:1000], strict=True)
    ]
    assert 0.75 < np.mean(shown) < 0.85


def test_equal_values_without_ends_have_no_interval_until_the_sign_test_can_reject() -> None:
    assert Constant(2.0, 5).interval(0.95) == (-inf, inf)
    assert Constant(2.0, 6).interval(0.95) == (2.0, 2.0)
    assert Constant(2.0, 6).p_value(0.0) == 1 / 32
    assert Constant(0.0, 6).p_value(0.0) == 1
