from pathlib import Path

from response_tuning.probe.page import METRIC_LABELS, Interval
from response_tuning.probe.template_fit import TemplateFit, rate_templates
from response_tuning.probe.templates_page import (
    TemplateRow,
    TemplatesReport,
    lines,
    write_templates_page,
)

EVIL = "<script>alert(1)</script>"


def report(name: str = "best", model: str = "base") -> TemplatesReport:
    fits = [TemplateFit("foreign", -3.0, -4.0), TemplateFit(name, -0.2, -1.2)]
    metrics = {metric: Interval(0.8, 0.7, 0.9, 3) for metric in METRIC_LABELS}
    best, foreign = rate_templates(fits)
    return TemplatesReport(
        model=model,
        sentence=f"Of 2 templates, '{name}' suits this base best.",
        rows=[TemplateRow(best, "strong", metrics), TemplateRow(foreign, "none", metrics)],
        notes=[f"Template 'native' was not measured: {model}."],
    )


def page(folder: Path, shown: TemplatesReport) -> str:
    write_templates_page(shown, folder / "probe.html")
    return (folder / "probe.html").read_text(encoding="utf-8")


def test_the_table_has_a_line_for_each_template_the_best_first() -> None:
    head, best, foreign, *legend = lines(report())
    assert head.split()[0] == "verdict"
    assert best.split() == ["strong", "0.00", "0.00", "-0.20", "-1.20", "80.0", "%", "best"]
    assert foreign.split() == ["none", "2.80", "2.80", "-3.00", "-4.00", "80.0", "%", "foreign"]
    assert len({line.index(word) for line, word in ((best, "best"), (foreign, "foreign"))}) == 1
    assert legend[1].startswith("best: The base takes this template for a conversation.")
    assert legend[2].startswith("foreign: The base does not take this template")


def test_a_page_shows_the_sentence_the_figures_and_which_gap_is_beyond_its_limit(
    tmp_path: Path,
) -> None:
    text = page(tmp_path, report())
    assert "&#39;best&#39; suits this base best." in text
    assert text.index('<p class="word strong">Strong.</p>') < text.index("suits this base best")
    assert text.index('<th scope="row">best</th>') < text.index('<th scope="row">foreign</th>')
    assert '<td class="n beyond">2.80*</td>' in text
    assert '<td class="n">0.00</td>' in text
    assert "Template &#39;native&#39; was not measured: base." in text
    assert "[70.0 %, 90.0 %]" in text


def test_no_name_becomes_part_of_the_page(tmp_path: Path) -> None:
    text = page(tmp_path, report(name=f"{EVIL}name", model=f"{EVIL}model"))
    assert "<script" not in text
    for part in ("name", "model"):
        assert f"&lt;script&gt;alert(1)&lt;/script&gt;{part}" in text
    assert "default-src 'none'" in text


def test_the_same_ranking_gives_the_same_bytes(tmp_path: Path) -> None:
    assert page(tmp_path, report()) == page(tmp_path, report())


def test_what_others_reached_is_shown_only_where_the_template_decides(tmp_path: Path) -> None:
    known = report()
    unknown = known._replace(rows=[row._replace(verdict="weak") for row in known.rows])
    assert "response tuning reached" not in " ".join(lines(unknown))
    assert "62 to 97 %" in page(tmp_path, known)
    assert "62 to 97 %" not in page(tmp_path, unknown)
