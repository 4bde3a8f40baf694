"""``rtune report``: formats, figures, metrics and published tables."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Rtune = Callable[..., Any]


def test_formats_figures_and_metrics_come_from_the_command_line(rtune: Rtune, run: Path) -> None:
    result = rtune(
        *("report", run, "--format", "latex,markdown", "--figures", "pdf, png,svg"),
        *("--metrics", "stopped,correct"),
    )
    assert (result.code, result.err) == (0, "")
    names = {path.name for path in (run / "report").iterdir()}
    assert {"report.tex", "report.md", "references.bib", "per_seed.csv"} <= names
    assert {"at-a-glance.pdf", "at-a-glance.png", "at-a-glance.svg"} <= names
    text = (run / "report" / "report.md").read_text(encoding="utf-8")
    assert "| rt | miniature-unseen-validation | stopped |" in text
    assert "| strict |" not in text
    tex = (run / "report" / "report.tex").read_text(encoding="utf-8")
    assert "variant & stopped & correct" in tex
    assert rtune("report", run).code == 0
    names = {path.name for path in (run / "report").iterdir()}
    assert not {"report.tex", "at-a-glance.pdf", "at-a-glance.png"} & names


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--format", "latx"], "formats.0: Input should be 'markdown' or 'latex'; did you mean"),
        (["--figures", "jpg"], "figures.0: Input should be 'svg', 'pdf' or 'png'"),
        (["--metrics", "strct"], "unknown metric in report.metrics 'strct': did you"),
        (["--published", "just-evl"], "unknown table in report.published 'just-evl': did you mean"),
        (
            ["--published", "just-eval"],
            "report.published: 'just-eval' has numbers of just-eval, and this run has miniature-",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line_and_the_report_stays(
    rtune: Rtune, run: Path, flags: list[str], said: str
) -> None:
    before = {path.name: path.read_bytes() for path in (run / "report").iterdir()}
    result = rtune("report", run, *flags)
    assert result.code == 2
    assert said in result.err
    assert result.err.count("\n") == 1
    assert {path.name: path.read_bytes() for path in (run / "report").iterdir()} == before
