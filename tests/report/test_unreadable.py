import csv
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from response_tuning.report import Variant, report, summary
from response_tuning.report_config import ReportConfig

pytestmark = pytest.mark.usefixtures("plain_plots")

Grade = Callable[..., None]
CONFIG = ReportConfig(baselines=("it",))
VARIANTS = [Variant("it", "one"), Variant("rt", "other")]


def results(run: Path) -> dict[tuple[str, str, str], dict[str, str]]:
    with (run / "report" / "results.csv").open(encoding="utf-8", newline="") as lines:
        return {(r["variant"], r["benchmark"], r["metric"]): r for r in csv.DictReader(lines)}


def judged(lost: int, of: int = 20) -> dict[str, list[float]]:
    """The scores of answers that all refuse, as far as the verdicts could be read."""
    unread = [float(place < lost) for place in range(of)]
    return {
        "refusal": [1 - value for value in unread],
        "compliance": [0.0] * of,
        "unclassified": unread,
        "stopped": [1.0] * of,
    }


@pytest.mark.parametrize("lost", [2, 20])
def test_rates_that_too_many_unread_verdicts_hide_are_no_numbers(
    run: Path, grade: Grade, lost: int
) -> None:
    grade("it", judged(0), benchmark="unsafe")
    grade("rt", judged(lost), benchmark="unsafe")
    said = report(run, VARIANTS, CONFIG)
    assert said == [f"unsafe, rt: {lost} of 20 unread ({5 * lost} % of verdicts): rates are n/a."]
    found = results(run)
    for metric in ("refusal", "compliance"):
        row = found["rt", "unsafe", metric]
        assert all(math.isnan(float(row[name])) for name in ("value", "low", "high"))
        assert row["n"] == "20"
    assert float(found["it", "unsafe", "refusal"]["value"]) == 1
    assert float(found["rt", "unsafe", "unclassified"]["value"]) == lost / 20
    assert float(found["rt", "unsafe", "stopped"]["value"]) == 1
    comparisons = (run / "report" / "comparisons.csv").read_text(encoding="utf-8")
    assert "refusal" not in comparisons and "stopped" in comparisons
    assert "n/a" in summary(run, VARIANTS)
    page = (run / "report" / "report.html").read_text(encoding="utf-8")
    assert (
        f'<span class="unread">n/a</span><small class="unread">{lost} of 20 unread</small>' in page
    )
    assert f'<p class="unread">{said[0]}</p>' in page
    text = (run / "report" / "report.md").read_text(encoding="utf-8")
    assert f"| n/a | {lost} of 20 unread |  | 20 | 20 |" in text
    assert f"**{said[0]}**" in text


def test_one_in_twenty_leaves_a_rate_what_it_is(run: Path, grade: Grade) -> None:
    grade("it", judged(0), benchmark="unsafe")
    grade("rt", judged(1), benchmark="unsafe")
    assert report(run, VARIANTS, CONFIG) == []
    assert float(results(run)["rt", "unsafe", "refusal"]["value"]) == 0.95


def test_a_report_of_which_nothing_could_be_read_is_still_a_report(run: Path, grade: Grade) -> None:
    for variant in ("it", "rt"):
        grade(variant, judged(20), benchmark="unsafe")
    assert len(report(run, VARIANTS, CONFIG)) == 2
    assert math.isnan(float(results(run)["it", "unsafe", "refusal"]["value"]))
    assert summary(run, VARIANTS).count("n/a") == 2
    assert (run / "report" / "report.html").exists()


def test_unread_safe_prompts_count_as_well(run: Path, grade: Grade) -> None:
    safe = {"false_refusal": [0.0] * 10, "safe_unclassified": [1.0] * 10}
    grade("it", safe, benchmark="unsafe")
    assert "10 of 10 unread" in report(run, VARIANTS[:1], ReportConfig())[0]


def test_filtered_answers_are_shown_where_there_are_any(run: Path, grade: Grade) -> None:
    grade("it", judged(0) | {"filtered": [1.0] * 5 + [0.0] * 15}, benchmark="unsafe")
    grade("rt", judged(0), benchmark="unsafe")
    assert report(run, VARIANTS, CONFIG) == []
    assert "filtered" in summary(run, VARIANTS)
    assert float(results(run)["it", "unsafe", "filtered"]["value"]) == 0.25
