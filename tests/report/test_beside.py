from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from response_tuning.report import Published, PublishedBeside, Variant, report
from response_tuning.report.beside import beside, other_prompts
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
def test_without_a_table_the_report_has_no_such_part(run: Path, grade: Callable[..., None]) -> None:
    grade("rt", {"strict": [1, 0, 1, 1]})
    report(run, [Variant("rt", "")], ReportConfig())
    assert "Published numbers" not in (run / "report" / "report.md").read_text(encoding="utf-8")
    assert not (run / "report" / "published.csv").exists()
