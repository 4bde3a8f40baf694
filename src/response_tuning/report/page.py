"""The report as one self-contained HTML page, and its tables in Markdown."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from response_tuning.metrics import ACCURACY, REFUSAL_RATES
from response_tuning.pages import PAGE_BYTES, environment, picture
from response_tuning.report.beside import beside, other_prompts
from response_tuning.report.comparison import Findings
from response_tuning.report.grid import Effect, Marginal, OverGrid
from response_tuning.report.joined import BenchmarkScores, Variant
from response_tuning.report.latex import tex
from response_tuning.report.metrics import headline
from response_tuning.report.plots import Drawing
from response_tuning.report.published import Published
from response_tuning.report.selective import Selective
from response_tuning.report.tables import (
    MAX_COLUMNS,
    Comparison,
    change,
    metrics_by_benchmark,
    number,
    p_value,
    shares,
)
from response_tuning.report.unreadable import UnknownRates, sentences
from response_tuning.report.variance import SEEDS_TO_VARY, per_prompt
from response_tuning.report.verdicts import NO_VARIATION, headlines, seeds_of
from response_tuning.report_config import ReportConfig

if TYPE_CHECKING:
    import jinja2


class ReportContents(NamedTuple):
    """The content of a report, for both formats."""

    title: str
    variants: Sequence[Variant]
    config: ReportConfig
    notes: Sequence[str]
    benchmarks: Sequence[BenchmarkScores]
    findings: Findings
    missing: Sequence[str]
    """Sentences on missing scores."""
    unknown: UnknownRates
    """Variants and benchmarks with too many unread verdicts."""
    grid: OverGrid
    """What the variants of a grid say together."""
    selective: Sequence[Selective] = ()
    """Areas under the risk-coverage curves, where answers have a confidence."""


class Plot(NamedTuple):
    """A figure with its heading and a description, which is also its alternative text."""

    title: str
    drawing: Drawing
    description: str

    @property
    def address(self) -> str:
        """The picture as a data URI."""
        return picture(self.drawing.svg)


class Group(NamedTuple):
    """The results of all variants on one group of a benchmark."""

    name: str
    n: int
    means: dict[tuple[str, str], float]
    """(Variant, metric) -> mean over prompts, or ratio."""


class Part(NamedTuple):
    """The section on one benchmark beyond the headline."""

    benchmark: str
    groups: list[Group]
    """Empty if there is only one group."""
    metrics: list[str]
    """Metrics of the table by group."""
    further: list[str]
    """Metrics outside the headline."""
    compared: list[str]
    """Further metrics that are not totals."""

    @property
    def description(self) -> str:
        """Its content in a few words."""
        groups = f"{len(self.groups)} groups" if self.groups else ""
        further = f"{len(self.further)} further metric{'s' if len(self.further) > 1 else ''}"
        return ", ".join(filter(None, (groups, further if self.further else "")))


def markdown(contents: ReportContents) -> str:
    """Return the tables as Markdown."""
    return _environment().get_template("report.md.jinja").render(_names(contents))


def latex(contents: ReportContents) -> str:
    """Return the tables as LaTeX, to be included in a paper."""
    return _environment().get_template("report.tex.jinja").render(_names(contents))


def html(
    contents: ReportContents, plots: Sequence[Plot], browser: Callable[[int], tuple[str, list[str]]]
) -> str:
    """Return the page; ``browser`` returns the JSON of the prompts that fit in so many bytes."""
    template = _environment().get_template("report.html.jinja")
    script = Path(__file__).with_name("browser.js").read_text(encoding="utf-8")
    families = {b.name: _groups(b, b.accuracy) for b in contents.benchmarks}
    tall = sum(len(b.headline) for b in contents.benchmarks) > MAX_COLUMNS
    parts = _parts(contents, tall)

    def render(data: str, left_out: Sequence[str]) -> str:
        return template.render(
            _names(contents),
            plots=plots,
            families={name: groups for name, groups in families.items() if len(groups) > 1},
            accuracy=ACCURACY,
            parts=parts,
            tall=tall,
            script=script,
            data=data,
            data_left_out=left_out,
        )

    # Rendered twice: the prompts get the bytes that the rest of the page leaves.
    sentences = 1000 * len(contents.benchmarks)
    return render(*browser(PAGE_BYTES - len(render("", []).encode()) - sentences))


def _groups(benchmark: BenchmarkScores, wanted: Sequence[str]) -> list[Group]:
    """Return the groups of a benchmark with at least one of the ``wanted`` metrics."""
    # (2, items) of each: sums of numerators over sums of denominators give means and ratios alike.
    parts = {
        (variant, metric): per_prompt(benchmark.parts(metric, variant))
        for variant in benchmark.variants
        for metric in wanted
        if metric in benchmark.values
    }
    group_of = np.array(benchmark.groups)
    groups = []
    for name in sorted({*benchmark.groups}):
        inside = group_of == name
        sums = {
            cell: part[:, inside & np.isfinite(part[0])].sum(axis=1) for cell, part in parts.items()
        }
        means = {cell: float(above / weight) for cell, (above, weight) in sums.items() if weight}
        if means:
            groups.append(Group(name, int(inside.sum()), means))
    return groups


def _parts(contents: ReportContents, tall: bool) -> list[Part]:
    """Return a part for each benchmark; a small report has none where it shows families."""
    # A small report shows families of accurate benchmarks instead, which say more than groups.
    metrics = metrics_by_benchmark(contents.findings.results)
    every = []
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
        if part.description:
            every.append(part)
    return every


def _with_scores(benchmark: BenchmarkScores) -> list[str]:
    """Return the headline without totals, which are not compared and have no groups."""
    return [metric for metric in benchmark.headline if metric in benchmark.values]


def _names(contents: ReportContents) -> dict[str, Any]:
    """Return the names that both templates use."""
    results, comparisons, trends, unjoined = contents.findings
    metrics = metrics_by_benchmark(results)
    columns = {b.name: headline(metrics.get(b.name, ()), b.display) for b in contents.benchmarks}
    with_scores = {b.name: _with_scores(b) for b in contents.benchmarks}
    in_percent = shares(results, {b.name: b.display for b in contents.benchmarks})
    published = {variant.name: variant.published.rows for variant in contents.variants}
    return {
        **contents._asdict(),
        "beside": beside(results, published),
        "not_beside": [*_not_beside(contents, published)],
        "beside_remarks": _remarks(contents),
        "unread_notes": sentences(contents.unknown),
        "columns": columns,
        "compared_columns": {name: shown for name, shown in with_scores.items() if shown},
        "total_notes": [*_total_notes(contents.benchmarks)],
        "shares": in_percent,
        "headlines": headlines(comparisons, contents, in_percent),
        "covered": _covered({result.seeds for result in results}),
        "margins": _margins(comparisons, in_percent),
        "result": {(r.variant, r.benchmark, r.metric): r for r in results},
        "comparison": {(c.baseline, c.variant, c.benchmark, c.metric): c for c in comparisons},
        "shown": [r for r in results if r.metric in columns.get(r.benchmark, ())],
        "compared": [
            c for c in comparisons if c.primary or c.metric in columns.get(c.benchmark, ())
        ],
        "compared_pairs": {(c.baseline, c.variant) for c in comparisons},
        "compared_baselines": [*dict.fromkeys(c.baseline for c in comparisons)],
        "marginals": _rows(contents.grid.marginals, columns, fixed=3),
        "effects": _rows(contents.grid.effects, columns, fixed=5),
        "trends": [t for t in trends if t.metric in (contents.config.metrics or REFUSAL_RATES)],
        "left_out": [*contents.missing, *unjoined],
    }


def _not_beside(
    contents: ReportContents, published: Mapping[str, Sequence[Published]]
) -> Iterator[str]:
    """Yield why numbers do not stand beside published ones, once for variants with one reason."""
    reasons: dict[str, list[str]] = {}
    scored = {result.variant for result in contents.findings.results}
    for variant in (one for one in contents.variants if one.name in scored):
        for reason in variant.published.reasons:
            reasons.setdefault(reason, []).append(variant.name)
    for reason, names in reasons.items():
        table, _, why = reason.partition(": ")
        yield f"Table {table} is not shown beside {', '.join(names)}: {why}."
    for sentence in other_prompts(contents.findings.results, published):
        yield f"Not shown: {sentence}."


def _remarks(contents: ReportContents) -> list[str]:
    """Return what settings cannot tell about the tables that are shown."""
    every = (remark for variant in contents.variants for remark in variant.published.remarks)
    return [*dict.fromkeys(every)]


def _rows(
    estimates: Sequence[Marginal] | Sequence[Effect],
    columns: Mapping[str, Sequence[str]],
    fixed: int,
) -> dict[tuple[Any, ...], dict[tuple[str, str], Marginal | Effect]]:
    """Return the first ``fixed`` fields -> (benchmark, metric) -> estimate, for shown metrics."""
    rows: dict[tuple[Any, ...], dict[tuple[str, str], Marginal | Effect]] = {}
    for one in estimates:
        if one.metric in columns.get(one.benchmark, ()):
            rows.setdefault(one[:fixed], {})[one.benchmark, one.metric] = one
    return rows


def _covered(seeds: set[int]) -> str:
    """Return a sentence on what the intervals cover, for results with these numbers of seeds."""
    few = {number for number in seeds if number < SEEDS_TO_VARY}
    if few == seeds:
        return f"Intervals cover the choice of prompts. {seeds_of(max(seeds))}: {NO_VARIATION}."
    also = f" Where there are fewer, there is {NO_VARIATION}." if few else ""
    return (
        f"Intervals cover the choice of prompts and the seeds of training, from {SEEDS_TO_VARY} "
        f"seeds on.{also}"
    )


def _margins(
    comparisons: Sequence[Comparison], in_percent: Container[tuple[str, str]]
) -> dict[str, str]:
    """Return metric -> its margins, as they are shown."""
    found: dict[str, dict[str, None]] = {}
    for c in comparisons:
        if c.margin is not None:
            shown = number(c.margin, (c.benchmark, c.metric) in in_percent)
            found.setdefault(c.metric, {})[shown] = None
    return {metric: " or ".join(shown) for metric, shown in found.items()}


def _total_notes(benchmarks: Sequence[BenchmarkScores]) -> Iterator[str]:
    """Yield a sentence on how each total was computed."""
    for benchmark in benchmarks:
        for metric, by_variant in benchmark.totals.items():
            totals = [total for by_seed in by_variant.values() for total in by_seed.values()]
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
"""Characters that could turn a label into a link, an image, a mention or HTML."""


def _environment() -> "jinja2.Environment":
    made = environment(Path(__file__).parent)
    made.filters |= {"number": number, "change": change, "p": p_value, "cell": _cell, "tex": tex}
    return made


def _cell(text: str) -> str:
    """Return text that stays in its cell of a Markdown table and is not a link, image or HTML."""
    for character, entity in _MARKDOWN.items():
        text = text.replace(character, entity)
    return " ".join(text.split())
