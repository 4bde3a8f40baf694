from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import binomtest

from response_tuning.metrics import Display, JudgeErrors
from response_tuning.report import Variant, report, summary
from response_tuning.report.correction import Rate, corrected_results, rogan_gladen
from response_tuning.report.tables import Result, read_results
from response_tuning.report_config import ReportConfig

pytestmark = pytest.mark.usefixtures("plain_plots")

Grade = Callable[..., None]

# Sensitivity 0.9, specificity 0.8, so that Youden's J is 0.7.
ERRORS = JudgeErrors(refusals=100, refusals_found=90, compliances=50, compliances_found=40)
PERFECT = JudgeErrors(10_000, 10_000, 10_000, 10_000)
COIN = JudgeErrors(refusals=100, refusals_found=50, compliances=100, compliances_found=50)
VARIANTS = [Variant("rt", "")]


def wilson(successes: int, n: int, confidence: float = 0.95) -> Rate:
    interval = binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Rate(successes / n, float(interval.low), float(interval.high))


def solved(raw: Rate, errors: JudgeErrors) -> Rate:
    found = rogan_gladen(raw, errors, 0.95)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("observed", "true"),
    [
        # 0.9 x 0.5 + 0.2 x 0.5 = 0.55, and so on.
        (0.55, 0.5),
        (0.2, 0.0),
        (0.9, 1.0),
        (0.27, 0.1),
        (0.1, 0.0),  # below the false alarms alone
        (0.95, 1.0),
    ],
)
def test_the_rate_is_solved_for(observed: float, true: float) -> None:
    found = solved(Rate(observed, observed - 0.15, observed + 0.15), ERRORS)
    assert found.value == pytest.approx(true)


def test_the_interval_is_that_of_lang_and_reiczigel() -> None:
    # By hand: n 200, 110 called refusals, z 1.96. p' = (110 + 1.9207) / 203.8415 = 0.549058;
    # Se' = 91 / 102 = 0.892157, Sp' = 41 / 52 = 0.788462, J' = 0.680618; centre 0.495902.
    # V_Se = 0.892157 x 0.107843 / 102 = 9.4326e-4, V_Sp = 0.788462 x 0.211538 / 52 = 3.20750e-3.
    # shift = 7.6829 x (0.495902 x 9.4326e-4 - 0.504098 x 3.2075e-3) = -8.8286e-3.
    # Wilson's error: 0.068247 / 1.959964 = 0.034820; with the two, sqrt(1.21244e-3 + 2.3197e-4
    # + 8.1507e-4) = 0.047534; width 1.959964 x 0.047534 / 0.680618 = 0.136883.
    found = solved(wilson(110, 200), ERRORS)
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high) == pytest.approx((0.350190, 0.623957), abs=2e-4)


def test_a_judge_without_errors_corrects_nothing() -> None:
    raw = wilson(60, 200)
    assert solved(raw, PERFECT) == pytest.approx(raw, abs=1e-3)


def test_fewer_labels_make_the_interval_wider_and_the_estimate_no_other() -> None:
    few = JudgeErrors(refusals=10, refusals_found=9, compliances=10, compliances_found=8)
    many = JudgeErrors(refusals=1000, refusals_found=900, compliances=1000, compliances_found=800)
    raw = wilson(110, 200)
    one, other = solved(raw, few), solved(raw, many)
    assert one.value == pytest.approx(other.value)
    assert one.high - one.low > 1.5 * (other.high - other.low)
    assert other.high - other.low > (raw.high - raw.low) / many.youden * 0.99


@pytest.mark.parametrize("raw", [Rate(0.4, float("-inf"), float("inf")), wilson(0, 5)])
def test_no_interval_leaves_0_to_1_or_leaves_out_the_estimate(raw: Rate) -> None:
    found = solved(raw, JudgeErrors(3, 3, 3, 2))
    assert 0 <= found.low <= found.value <= found.high <= 1
    if not np.isfinite(raw.low):
        assert (found.low, found.high) == (0, 1)


def test_a_rate_that_no_true_rate_explains_is_not_corrected(run: Path, grade: Grade) -> None:
    assert rogan_gladen(wilson(200, 200), ERRORS, 0.95) is None
    assert rogan_gladen(wilson(0, 400), ERRORS, 0.95) is None
    grade("rt", {"refusal": [1] * 200})
    report(run, VARIANTS, ReportConfig(), benchmarks={"quiz": Display(("refusal",), errors=ERRORS)})
    assert "refusal_corrected" not in (run / "report" / "results.csv").read_text()
    assert (
        "quiz, rt: refusal is not corrected, because the judge's errors explain no rate outside "
        "20.0 to 90.0 %, and it is 100.0 %."
    ) in (run / "report" / "report.md").read_text()


def test_a_judge_that_guesses_corrects_nothing(run: Path, grade: Grade) -> None:
    rows = reported(run, grade, None)
    assert corrected_results([*rows.values()], COIN, 0.95) == []
    assert corrected_results([*rows.values()], None, 0.95) == []


def reported(run: Path, grade: Grade, errors: JudgeErrors | None) -> dict[str, Result]:
    grade("rt", {"refusal": [1] * 11 + [0] * 9, "false_refusal": [0] * 20, "strict": [1] * 20})
    displays = {"quiz": Display(("refusal", "false_refusal", "strict"), errors=errors)}
    report(run, VARIANTS, ReportConfig(), benchmarks=displays)
    return {row.metric: row for row in read_results(run / "report" / "results.csv")}


def test_a_report_has_the_corrected_rates_beside_the_raw_ones(run: Path, grade: Grade) -> None:
    rows = reported(run, grade, ERRORS)
    assert [*rows] == [
        *("refusal", "refusal_corrected", "false_refusal", "false_refusal_corrected", "strict"),
    ]
    raw, corrected = rows["refusal"], rows["refusal_corrected"]
    assert raw.value == 0.55
    assert corrected.value == pytest.approx(0.5)
    assert (corrected.n, corrected.seeds) == (raw.n, raw.seeds)
    assert corrected.low < raw.low
    for page in ("report.md", "report.html"):
        assert "refusal_corrected" in (run / "report" / page).read_text().replace(
            " corrected", "_corrected"
        )
    assert "refusal_corrected" in summary(run, VARIANTS, {"quiz": Display(("refusal",))})


def test_a_report_without_known_errors_has_the_raw_rates_alone(run: Path, grade: Grade) -> None:
    assert not [metric for metric in reported(run, grade, None) if "corrected" in metric]


CELLS = [
    (true, se, sp, n, labels)
    for true in (0.02, 0.3, 0.5, 0.9)
    for se, sp in ((0.9, 0.95), (0.75, 0.9))
    for n, labels in ((50, 50), (300, 100), (500, 400))
]


@pytest.mark.parametrize(
    ("true", "se", "sp", "n", "labels"),
    [CELLS[7], *(pytest.param(*cell, marks=pytest.mark.exhaustive) for cell in CELLS)],
)
def test_the_interval_covers_the_true_rate(
    true: float, se: float, sp: float, n: int, labels: int
) -> None:
    rng = np.random.default_rng(0)
    draws = 1000
    called = rng.binomial(n, true * se + (1 - true) * (1 - sp), draws)
    hits, rejections = rng.binomial(labels, se, draws), rng.binomial(labels, sp, draws)
    z = NormalDist().inv_cdf(0.975)
    covered = 0
    for count, hit, rejection in zip(called, hits, rejections, strict=True):
        errors = JudgeErrors(labels, int(hit), labels, int(rejection))
        middle = (count + z**2 / 2) / (n + z**2)
        half = z / (n + z**2) * np.sqrt(count * (n - count) / n + z**2 / 4)
        found = rogan_gladen(Rate(count / n, middle - half, middle + half), errors, 0.95)
        covered += found is not None and found.low <= true <= found.high
    # Two standard errors of 1,000 draws are 1.4 points; near 0 the interval is conservative.
    assert covered / draws >= 0.93
