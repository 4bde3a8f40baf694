"""The report for eyes: one HTML page that needs nothing else, and the same tables in Markdown."""

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from response_tuning.configs import ReportConfig
from response_tuning.metrics import ACCURACY
from response_tuning.report.comparison import Findings
from response_tuning.report.joined import BenchmarkScores, Variant
from response_tuning.report.metrics import headline
from response_tuning.report.statistics import per_prompt
from response_tuning.report.tables import (
    MAX_COLUMNS,
    change,
    metrics_by_benchmark,
    number,
    p_value,
    shares,
)
from response_tuning.report.unreadable import Unknown, sentences

if TYPE_CHECKING:
    import jinja2


PAGE_BYTES = 3_000_000
"""A page must open quickly and fit in an e-mail."""


class ReportContents(NamedTuple):
    """What a report says, before it has a form."""

    title: str
    variants: Sequence[Variant]
    config: ReportConfig
    notes: Sequence[str]
    benchmarks: Sequence[BenchmarkScores]
    findings: Findings
    missing: Sequence[str]
    """Sentences on scores that are not there."""
    unknown: Unknown
    """Of which variants and benchmarks too much could not be read."""


class Plot(NamedTuple):
    """An SVG, its heading, and the sentence that stands for it where it cannot be seen."""

    title: str
    svg: str
    says: str

    @property
    def address(self) -> str:
        """The picture as a data URI, so that no id in it can clash with another's."""
        return f"data:image/svg+xml;base64,{b64encode(self.svg.encode()).decode()}"


class Group(NamedTuple):
    """What all variants reach on one group of a benchmark."""

    name: str
    n: int
    means: dict[tuple[str, str], float]
    """(Variant, metric) -> mean over prompts, or ratio."""


class Part(NamedTuple):
    """What a page says of one benchmark beyond the headline."""

    benchmark: str
    groups: list[Group]
    """Empty if there is one only."""
    metrics: list[str]
    """Those that groups are shown by."""
    further: list[str]
    """Metrics that are not in the headline."""
    compared: list[str]
    """Those of them that are no totals."""

    @property
    def says(self) -> str:
        """What is in it, in a few words."""
        groups = f"{len(self.groups)} groups" if self.groups else ""
        further = f"{len(self.further)} further metric{'s' if len(self.further) > 1 else ''}"
        return ", ".join(filter(None, (groups, further if self.further else "")))


def markdown(contents: ReportContents) -> str:
    """Return the tables as Markdown."""
    return _environment().get_template("report.md.jinja").render(_names(contents))


def html(
    contents: ReportContents, plots: Sequence[Plot], browser: Callable[[int], tuple[str, list[str]]]
) -> str:
    """Return the page; ``browser`` gives the JSON of as many prompts as so many bytes hold."""
    template = _environment().get_template("report.html.jinja")
    script = Path(__file__).with_name("browser.js").read_text(encoding="utf-8")
    families = {b.name: _groups(b, b.accuracy) for b in contents.benchmarks}
    tall = sum(len(b.headline) for b in contents.benchmarks) > MAX_COLUMNS
    parts = _parts(contents, tall)

    def render(data: str, left_out: Sequence[str]) -> str:
        return template.render(
            _names(contents),
            plots=plots,
            families={name: found for name, found in families.items() if len(found) > 1},
            accuracy=ACCURACY,
            parts=parts,
            tall=tall,
            script=script,
            data=data,
            data_left_out=left_out,
        )

    sentences = 1000 * len(contents.benchmarks)
    return render(*browser(PAGE_BYTES - len(render("", []).encode()) - sentences))


def _groups(benchmark: BenchmarkScores, wanted: Sequence[str]) -> list[Group]:
    """Return the groups of a benchmark that have any of the ``wanted`` metrics."""
    parts = {
        (variant, metric): per_prompt(benchmark.parts(metric, variant))
        for variant in benchmark.variants
        for metric in wanted
        if metric in benchmark.values
    }
    groups = np.array(benchmark.groups)
    found = []
    for name in sorted({*benchmark.groups}):
        inside = groups == name
        sums = {
            cell: part[:, inside & np.isfinite(part[0])].sum(axis=1) for cell, part in parts.items()
        }
        means = {cell: float(above / weight) for cell, (above, weight) in sums.items() if weight}
        if means:
            found.append(Group(name, int(inside.sum()), means))
    return found


def _parts(contents: ReportContents, tall: bool) -> list[Part]:
    """Return a part for each benchmark, but in a small report none if its families are shown."""
    metrics = metrics_by_benchmark(contents.findings.results)
    found = []
    for benchmark in contents.benchmarks:
        if benchmark.accuracy and not tall:
            continue
        groups = [] if benchmark.accuracy else _groups(benchmark, benchmark.headline)
        shown = headline(metrics[benchmark.name], benchmark.display)
        further = [name for name in metrics[benchmark.name] if name not in shown]
        part = Part(
            benchmark.name,
            groups if len(groups) > 1 else [],
            _with_scores(benchmark),
            further,
            [name for name in further if name in benchmark.values],
        )
        if part.says:
            found.append(part)
    return found


def _with_scores(benchmark: BenchmarkScores) -> list[str]:
    """Return the headline without totals, which are not compared, and have no groups."""
    return [metric for metric in benchmark.headline if metric in benchmark.values]


def _names(contents: ReportContents) -> dict[str, Any]:
    """Return what both templates use."""
    results, comparisons, trends, unjoined = contents.findings
    metrics = metrics_by_benchmark(results)
    columns = {b.name: headline(metrics.get(b.name, ()), b.display) for b in contents.benchmarks}
    with_scores = {b.name: _with_scores(b) for b in contents.benchmarks}
    return {
        **contents._asdict(),
        "unread_notes": sentences(contents.unknown),
        "columns": columns,
        "compared_columns": {name: found for name, found in with_scores.items() if found},
        "total_notes": [*_total_notes(contents.benchmarks)],
        "shares": shares(results, {b.name: b.display for b in contents.benchmarks}),
        "result": {(r.variant, r.benchmark, r.metric): r for r in results},
        "comparison": {(c.baseline, c.variant, c.benchmark, c.metric): c for c in comparisons},
        "shown": [r for r in results if r.metric in columns[r.benchmark]],
        "compared": [c for c in comparisons if c.metric in columns[c.benchmark]],
        "trends": trends,
        "left_out": [*contents.missing, *unjoined],
    }


def _total_notes(benchmarks: Sequence[BenchmarkScores]) -> Iterator[str]:
    """Say how what is no mean of scores was found."""
    for benchmark in benchmarks:
        for metric, by_variant in benchmark.totals.items():
            totals = [total for found in by_variant.values() for total in found]
            notes = {total.note: None for total in totals if total.note}
            if len(totals) > len(by_variant):
                notes["means over seeds, of their values and of their limits"] = None
            if notes:
                yield f"{benchmark.name}, {metric}: {'; '.join(notes)}."


_MARKDOWN = {
    "&": "&amp;",
    "|": "\\|",
    "<": "&lt;",
    "[": "&#91;",
    "`": "&#96;",
    "@": "&#64;",
    "://": "&#58;//",
    "www.": "www&#46;",
}
"""What makes a link, an image, a mention or HTML of a label; bare addresses become links too."""


def _environment() -> "jinja2.Environment":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=lambda name: bool(name and name.endswith(".html.jinja")),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "change": change, "p": p_value, "cell": _cell}
    return environment


def _cell(text: str) -> str:
    """Return text that stays inside its cell of a Markdown table, and is no link, image or HTML."""
    for character, entity in _MARKDOWN.items():
        text = text.replace(character, entity)
    return " ".join(text.split())
