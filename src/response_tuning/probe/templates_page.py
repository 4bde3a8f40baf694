"""The ranking of templates as text and as a web page."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from response_tuning.artifacts import written_aside
from response_tuning.pages import environment
from response_tuning.probe.page import VERDICT_WORDS, Interval, formatted
from response_tuning.probe.ranking import ProbeVerdict
from response_tuning.probe.template_fit import (
    ALONE,
    ALONE_LIMIT,
    GIVEN,
    GIVEN_LIMIT,
    KIND_VERDICTS,
    OUTCOMES,
    RatedTemplate,
    expectation,
)

_COLUMNS = ("verdict", "gap", "gap alone", "log p", "log p alone", "ranked", "template")


class TemplateRow(NamedTuple):
    """One template: the gaps that rate it, its verdict and its metrics."""

    rated: RatedTemplate
    verdict: ProbeVerdict
    metrics: Mapping[str, Interval]


class TemplatesReport(NamedTuple):
    """A ranking of templates on one base."""

    model: str
    sentence: str
    """Which template suits the base best."""
    rows: Sequence[TemplateRow]
    """The best first."""
    notes: Sequence[str]
    """What was measured, and what was left out."""


def lines(report: TemplatesReport) -> Iterator[str]:
    """Yield the table as lines of text, and below it what the verdicts mean."""
    table = [_COLUMNS, *(_cells(row) for row in report.rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for verdict, *numbers, template in table:
        padded = [number.rjust(width) for number, width in zip(numbers, widths[1:-1], strict=True)]
        yield "  ".join([verdict.ljust(widths[0]), *padded, template])
    yield (
        f"gap: nats per token below the best template, given the instruction (limit {GIVEN_LIMIT}) "
        f"and after the assistant's opening alone (limit {ALONE_LIMIT}); ranked: by the mean over "
        "tokens"
    )
    yield from _expectations(report.rows)


def write_templates_page(report: TemplatesReport, path: Path) -> None:
    """Write one self-contained page; every text from the data or a model's name is escaped."""
    template = environment(Path(__file__).parent).get_template("templates.html.jinja")
    page = template.render(
        report._asdict()
        | {
            "cells": [_page_cells(row) for row in report.rows],
            "word": VERDICT_WORDS[report.rows[0].verdict],
            "expectations": [*_expectations(report.rows)],
            "limits": (GIVEN_LIMIT, ALONE_LIMIT),
        }
    )
    with written_aside(path) as out:
        out.write(page)


def _cells(row: TemplateRow) -> tuple[str, ...]:
    rated = row.rated
    return (
        row.verdict,
        f"{rated.given_gap:.2f}",
        f"{rated.alone_gap:.2f}",
        f"{rated.fit.given:.2f}",
        f"{rated.fit.alone:.2f}",
        formatted("ranked_per_token", row.metrics["ranked_per_token"].value),
        rated.fit.template,
    )


def _page_cells(row: TemplateRow) -> dict[str, str]:
    ranges = {
        metric: "[{}, {}]".format(
            *(formatted(metric, end) for end in (row.metrics[metric].low, row.metrics[metric].high))
        )
        for metric in (GIVEN, ALONE, "ranked_per_token")
    }
    outcome = OUTCOMES[row.rated.kind]
    reached = f"{100 * outcome.low:.0f} to {100 * outcome.high:.0f} %"
    names = ("verdict", "given_gap", "alone_gap", GIVEN, ALONE, "ranked_per_token", "template")
    return {
        **dict(zip(names, _cells(row), strict=True)),
        **{f"{metric}_range": text for metric, text in ranges.items()},
        "reached": reached if _is_by_kind(row) else "",
    }


def _is_by_kind(row: TemplateRow) -> bool:
    """Whether the template decides: what was measured is about bases that know the subject."""
    return row.verdict == KIND_VERDICTS[row.rated.kind]


def _expectations(rows: Sequence[TemplateRow]) -> Iterator[str]:
    """Yield one line for each kind of template in the table, with the templates of that kind."""
    known = [row for row in rows if _is_by_kind(row)]
    for kind in dict.fromkeys(row.rated.kind for row in known):
        of_kind = [row.rated.fit.template for row in known if row.rated.kind == kind]
        yield f"{', '.join(of_kind)}: {expectation(kind)}"
