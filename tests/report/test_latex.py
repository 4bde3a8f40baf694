import re
from collections.abc import Callable
from pathlib import Path

import pytest

from response_tuning.report import About, Variant, report
from response_tuning.report.latex import tex
from response_tuning.report_config import PrimaryConfig, ReportConfig

pytestmark = pytest.mark.usefixtures("plain_plots")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50 % & more_words", r"50 \% \& more\_words"),
        ("$5 #1 {a}", r"\$5 \#1 \{a\}"),
        (r"a\b~c^d", r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d"),
        ("p < 0.001", "p $<$ 0.001"),
        ("−1.5", "$-$1.5"),  # noqa: RUF001 - the sign of a difference
        ("two\nlines", "two lines"),
    ],
)
def test_every_character_prints_as_it_stands(text: str, expected: str) -> None:
    assert tex(text) == expected


def test_the_tables_are_whole_environments_with_as_many_cells_as_columns(
    run: Path, grade: Callable[..., None]
) -> None:
    for name, strict in (("it_1 & co", [1, 0, 1, 1]), ("rt", [1, 0, 0, 1])):
        for seed in range(3):
            grade(name, {"strict": strict, "correct": [1, 1, 1, 1]}, seed=seed)
    config = ReportConfig(
        baselines=("it_1 & co",),
        primary=(PrimaryConfig(variant="rt", baseline="it_1 & co", metric="strict"),),
        formats=("latex",),
    )
    report(run, [Variant("it_1 & co", ""), Variant("rt", "")], config, About(["100 % of a note"]))
    text = (run / "report" / "report.tex").read_text(encoding="utf-8")
    for kind in ("table", "tabular"):
        assert text.count(f"\\begin{{{kind}}}") == text.count(f"\\end{{{kind}}}") == 2
    assert "% 100 \\% of a note" in text
    assert r"it\_1 \& co & 75.0 {\scriptsize [" in text
    assert r"(primary)" in text
    plain = re.sub(r"\\[{}]", "", re.sub(r"(?m)^%.*", "", text))
    assert plain.count("{") == plain.count("}")
    for body in re.findall(r"\\begin\{tabular\}\{(.*?)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
        columns, rows = body
        cells = {len(re.findall(r"(?<!\\)&", row)) + 1 for row in rows.split(r"\\")[:-1]}
        assert cells == {len(columns)}
