from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from response_tuning.report import NotCompared, Published, PublishedBeside, Variant, report
from response_tuning.report.beside import beside, not_compared, not_measured, other_prompts
from response_tuning.report.tables import Result
from response_tuning.report_config import ReportConfig

ROW = Published(
    "v3", "Table 9", "Llama", "lima", 0, "response-tuning", "quiz", "strict", 0.8, 0.01, prompts=4
)


def ours(value: float, low: float, high: float, n: int = 4) -> Result:
    return Result("rt", "quiz", "strict", value, low, high, n, 1, n, None, (value,))


@pytest.mark.parametrize(("low", "inside"), [(0.7, True), (0.8, True), (0.81, False)])
def test_a_number_stands_beside_ours_with_the_difference_and_whether_it_is_inside(
    low: float, inside: bool
) -> None:
    (line,) = beside([ours(0.85, low, 0.9)], {"rt": [ROW]})
    assert (line.published, line.published_sd, line.inside) == (0.8, 0.01, inside)
    assert line.difference == pytest.approx(0.05)
    assert line.source == "v3, Table 9"


def test_another_number_of_prompts_is_named_and_not_compared() -> None:
    results = [ours(0.85, 0.7, 0.9, n=3)]
    assert beside(results, {"rt": [ROW]}) == []
    assert [*other_prompts(results, {"rt": [ROW]})] == [
        "quiz, strict: 3 prompts here, and 4 in the table"
    ]


def test_variants_and_metrics_without_a_result_have_no_line() -> None:
    rows = {"it": [ROW], "rt": [ROW._replace(metric="beauty")]}
    assert beside([ours(0.85, 0.7, 0.9)], rows) == []


def test_a_metric_that_is_not_measured_is_named_once() -> None:
    beauty = ROW._replace(metric="beauty")
    other = Result("it", "quiz", "strict", 0.5, 0.4, 0.6, 4, 1, 4, None, (0.5,))
    rows = {"rt": [ROW, beauty], "it": [beauty], "base": [ROW]}
    assert [*not_measured([ours(0.85, 0.7, 0.9), other], rows)] == [
        "beauty (quiz) is not measured here",
        "strict (quiz) is not measured here for base",
    ]


def test_numbers_that_are_not_compared_are_listed_with_the_reason_once() -> None:
    points = ROW._replace(value=3.7, unit="points", metric="overall")
    found = {
        "rt": [NotCompared("tea", "quiz", "the judge is blind", (ROW, points))],
        "it": [NotCompared("tea", "quiz", "the judge is blind", (ROW,))],
    }
    assert [*not_compared(found)] == [
        "Not compared with table tea, quiz: the judge is blind. "
        "It has strict 80.0 (rt), overall 3.700 (rt), strict 80.0 (it)."
    ]


@pytest.mark.usefixtures("plain_plots")
def test_the_report_shows_what_matches_and_says_why_the_rest_does_not(
    run: Path, grade: Callable[..., None]
) -> None:
    for name in ("rt", "it", "base"):
        grade(name, {"strict": [1, 0, 1, 1]})
    found = PublishedBeside((ROW,), (), ("quiz: Judged by <b>people</b>.",))
    why = PublishedBeside((), ("quiz: the base is tiny, and the table has Llama",))
    variants = [
        replace(Variant("rt", ""), published=found),
        *(replace(Variant(name, ""), published=why) for name in ("it", "base")),
    ]
    report(run, variants, ReportConfig(published=("just-eval",), formats=("markdown", "latex")))
    text = (run / "report" / "report.md").read_text(encoding="utf-8")
    assert "## Published numbers" in text
    assert "| rt | quiz | strict | 75.0 | [30.1, 95.4] | 80.0 (sd 1.0) | −5.0 | yes |" in text  # noqa: RUF001
    assert "- quiz: Judged by &lt;b>people&lt;/b>." in text
    why_not = "Table quiz is not shown beside it, base: the base is tiny, and the table has Llama."
    assert f"- {why_not}" in text
    page = (run / "report" / "report.html").read_text(encoding="utf-8")
    assert '<h2 id="published">Published numbers</h2>' in page
    assert why_not in page
    assert "Judged by &lt;b&gt;people" in page
    lines = (run / "report" / "published.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("rt,quiz,strict,0.75,")
    assert "This run beside published numbers" in (run / "report" / "report.tex").read_text()


@pytest.mark.usefixtures("plain_plots")
def test_the_report_says_below_the_table_what_may_differ_and_apart_what_is_not_shown(
    run: Path, grade: Callable[..., None]
) -> None:
    for name in ("rt", "it", "base"):
        grade(name, {"strict": [1, 0, 1, 1]})
    unmeasured = ROW._replace(metric="beauty")
    odd = ROW._replace(metric="length_controlled")
    found = {
        "rt": PublishedBeside((ROW,), (), ("quiz: Judged by people.", "quiz: A local copy.")),
        "it": PublishedBeside(
            (ROW, unmeasured),
            (),
            ("quiz: Judged by people.",),
            (NotCompared("quiz", "quiz/length_controlled", "one order", (odd,)),),
        ),
        "base": PublishedBeside((unmeasured,), (), ("quiz: Judged by nobody.",)),
    }
    variants = [replace(Variant(name, ""), published=one) for name, one in found.items()]
    report(run, variants, ReportConfig(published=("just-eval",), formats=("markdown", "latex")))
    text = (run / "report" / "report.md").read_text(encoding="utf-8")
    shown, _, not_shown = text.partition("\nWhat may differ:\n")[2].partition("Not shown beside")
    assert "where base, data and known settings match. What may differ is below the table." in text
    assert shown.strip().splitlines() == [
        "- quiz: Judged by people.",
        "- quiz beside rt: A local copy.",
    ]
    assert (
        "- Not compared with table quiz, quiz/length_controlled: one order. It has "
        "length_controlled 80.0 (it)."
    ) in not_shown
    assert not_shown.count("- Not shown: beauty (quiz) is not measured here.") == 1
    page = (run / "report" / "report.html").read_text(encoding="utf-8")
    assert "<li>quiz beside rt: A local copy.</li>" in page
    assert page.index('<p class="quiet">What may differ:</p>') < page.index("Not shown beside")
    tex = (run / "report" / "report.tex").read_text(encoding="utf-8")
    assert (
        "known settings match. What may differ: quiz: Judged by people. quiz beside rt: A local"
        in tex
    )
    lines = (run / "report" / "published.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[:3] for line in lines[1:]] == [
        ["rt", "quiz", "strict"],
        ["it", "quiz", "strict"],
    ]


@pytest.mark.usefixtures("plain_plots")
def test_without_a_table_the_report_has_no_such_part(run: Path, grade: Callable[..., None]) -> None:
    grade("rt", {"strict": [1, 0, 1, 1]})
    report(run, [Variant("rt", "")], ReportConfig())
    assert "Published numbers" not in (run / "report" / "report.md").read_text(encoding="utf-8")
    assert not (run / "report" / "published.csv").exists()
