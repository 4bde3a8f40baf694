"""The report as one self-contained HTML page, and its tables in Markdown."""

from base64 import b64encode
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning.metrics import ACCURACY, REFUSAL_RATES
from response_tuning.pages import PAGE_BYTES, environment, picture, script
from response_tuning.report.answers import BenchmarkAnswers, disagreements
from response_tuning.report.beside import Beside, beside, not_compared, not_measured, other_prompts
from response_tuning.report.browser import browser_json
from response_tuning.report.comparison import Findings
from response_tuning.report.grid import Effect, Marginal, OverGrid
from response_tuning.report.joined import BenchmarkScores, Variant
from response_tuning.report.latex import tex
from response_tuning.report.metrics import headline
from response_tuning.report.opening import finding, hedge, numbers, subject_of
from response_tuning.report.plots import Drawing
from response_tuning.report.published import Published
from response_tuning.report.sections import sections
from response_tuning.report.selective import Selective
from response_tuning.report.tables import (
    Comparison,
    change,
    metrics_by_benchmark,
    number,
    p_value,
    shares,
)
from response_tuning.report.unreadable import UnknownRates, sentences
from response_tuning.report.variance import SEEDS_TO_VARY
from response_tuning.report.verdicts import NO_VARIATION, headlines, seeds_of
from response_tuning.report_config import ReportConfig

if TYPE_CHECKING:
    import jinja2


class About(NamedTuple):
    """What a report says about its run beside the numbers."""

    notes: Sequence[str] = ()
    """Sentences on the limits of the run."""
    provenance: Sequence[tuple[str, str]] = ()
    """What the run was made from and with: a name and its value."""


ABOUT_NOTHING = About()


class ReportContents(NamedTuple):
    """The content of a report, for all formats."""

    title: str
    variants: Sequence[Variant]
    config: ReportConfig
    about: About
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


class Figure(NamedTuple):
    """A figure in one format, to be downloaded from the page."""

    form: str
    address: str


class Plot(NamedTuple):
    """A figure with its heading and a description, which is also its alternative text."""

    name: str
    """Of its files."""
    title: str
    drawing: Drawing
    description: str

    @property
    def address(self) -> str:
        """The picture as a data URI."""
        return picture(self.drawing.svg)

    @property
    def files(self) -> list[Figure]:
        """The figure in each format as a data URI: the page may be all that somebody has."""
        forms = {"svg": "image/svg+xml", "png": "image/png", "pdf": "application/pdf"}
        return [
            Figure(form, f"data:{kind};base64,{b64encode(self.drawing.saved(form)).decode()}")
            for form, kind in forms.items()
        ]


def markdown(contents: ReportContents) -> str:
    """Return the tables as Markdown."""
    return _environment().get_template("report.md.jinja").render(_names(contents))


def latex(contents: ReportContents) -> str:
    """Return the tables as LaTeX, to be included in a paper."""
    return _environment().get_template("report.tex.jinja").render(_names(contents))


def html(
    contents: ReportContents, plots: Sequence[Plot], answered: Sequence[BenchmarkAnswers]
) -> str:
    """Return the page, with as many prompts and answers as fit."""
    template = _environment().get_template("report.html.jinja")
    names = _names(contents)
    subject = names["subject"]
    compared = [subject.variant, *subject.baselines]
    primary = {one.metric for one in contents.config.primary}
    names |= {
        "accuracy": ACCURACY,
        "plots": [plot for plot in plots if plot.name != "dose-response"],
        "dose_plots": [plot for plot in plots if plot.name == "dose-response"],
        "examples": disagreements(answered, compared, subject.metric) if compared[1:] else [],
        "sections": sections(contents.benchmarks, contents.findings, primary),
        "script": script(Path(__file__).with_name("browser.js")),
        "of_name": {variant.name: variant for variant in contents.variants},
    }

    def render(data: str, left_out: Sequence[str]) -> str:
        return template.render(names, data=data, data_left_out=left_out)

    # Rendered twice: the prompts get the bytes that the rest of the page leaves.
    room = PAGE_BYTES - len(render("", []).encode()) - 1000 * len(contents.benchmarks)
    return render(*browser_json(answered, compared, room))


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
    lines = beside(results, published)
    of_results = {(r.variant, r.benchmark, r.metric): r for r in results}
    found = headlines(comparisons, contents, in_percent)
    subject = subject_of(found, contents.variants, results)
    return {
        **contents._asdict(),
        "notes": contents.about.notes,
        "finding": finding(found, in_percent),
        "hedge": hedge(found),
        "subject": subject,
        "numbers": numbers(subject, found, results, columns, in_percent, contents.unknown),
        "beside": lines,
        "not_beside": [*_not_beside(contents, published)],
        "beside_remarks": _remarks(contents, lines),
        "unread_notes": sentences(contents.unknown),
        "columns": columns,
        "compared_columns": {name: shown for name, shown in with_scores.items() if shown},
        "total_notes": [*_total_notes(contents.benchmarks)],
        "shares": in_percent,
        "headlines": found,
        "covered": _covered({result.seeds for result in results}),
        "margins": _margins(comparisons, in_percent),
        "result": of_results,
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
    results = contents.findings.results
    scored = {result.variant for result in results}
    variants = [one for one in contents.variants if one.name in scored]
    for reason, names in _together({one.name: one.published.reasons for one in variants}).items():
        table, _, why = reason.partition(": ")
        yield f"Table {table} is not shown beside {', '.join(names)}: {why}."
    yield from not_compared({one.name: one.published.not_compared for one in variants})
    rows = {one.name: published[one.name] for one in variants}
    for sentence in (*other_prompts(results, rows), *not_measured(results, rows)):
        yield f"Not shown: {sentence}."


def _remarks(contents: ReportContents, lines: Sequence[Beside]) -> list[str]:
    """Return what settings cannot tell about the numbers in ``lines``, and for which variants."""
    shown = {line.variant for line in lines}
    found = {v.name: v.published.remarks for v in contents.variants if v.name in shown}
    return [
        remark
        if len(names) == len(shown)
        else remark.replace(": ", f" beside {', '.join(names)}: ", 1)
        for remark, names in _together(found).items()
    ]


def _together(sentences: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return sentence -> variants that have it."""
    found: dict[str, list[str]] = {}
    for variant, of_variant in sentences.items():
        for sentence in of_variant:
            found.setdefault(sentence, []).append(variant)
    return found


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
