"""A report on a run: read, compare, and write tables, plots and a page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import get_args

from response_tuning.artifacts import written_aside
from response_tuning.metrics import REFUSAL_RATES, Display
from response_tuning.registry import unknown
from response_tuning.report.answers import read_answers
from response_tuning.report.beside import Beside, beside
from response_tuning.report.comparison import check, compare, places_of, with_each_pair
from response_tuning.report.estimates import seed_values
from response_tuning.report.grid import Effect, Marginal, over_grid
from response_tuning.report.joined import BenchmarkScores, Variant
from response_tuning.report.page import (
    ABOUT_NOTHING,
    About,
    Plot,
    ReportContents,
    html,
    latex,
    markdown,
)
from response_tuning.report.plots import at_a_glance, axis, dose_response, risk_coverage
from response_tuning.report.reading import read_scores
from response_tuning.report.selective import (
    Abstention,
    Answers,
    Selective,
    abstentions,
    risks,
    selective,
)
from response_tuning.report.tables import Comparison, Result, SeedValue, Trend, write_csv
from response_tuning.report.unreadable import as_results, sentences, unknown_rates, without
from response_tuning.report.variance import Array
from response_tuning.report_config import FigureFormat, ReportConfig


def report(
    run: Path,
    variants: Sequence[Variant],
    config: ReportConfig,
    about: About = ABOUT_NOTHING,
    seeds: Mapping[str, Sequence[int]] | None = None,
    benchmarks: Mapping[str, Display] | None = None,
) -> list[str]:
    """Compare the graded ``variants`` of a run and write ``run/report/``.

    ``about`` has the limits and the origin of the run. ``seeds`` of each variant, and
    ``benchmarks``, are those to read, by default all; ``benchmarks`` gives their order and how each
    is shown.
    Returns a sentence for each variant and benchmark whose rates are not known, since too many
    verdicts are unread.

    Raises:
        ConfigError: a baseline is not a variant, or two variants of a series have the same dose.
        DataError: there are no scores, or a file of scores or completions is unusable.
    """
    check(variants, config)
    config = with_each_pair(config, places_of(variants))
    names = [variant.name for variant in variants]
    benchmarks_read, missing = read_scores(run, names, seeds, benchmarks)
    unread = unknown_rates(benchmarks_read)
    known = [without(benchmark, unread) for benchmark in benchmarks_read]
    findings = compare(known, variants, config)
    findings.results.extend(as_results(benchmarks_read, unread))
    findings.results.sort(key=lambda result: names.index(result.variant))
    title = f"Report on {run.resolve().name}"
    shown = chosen(known, config.metrics)
    grid = over_grid(known, variants, config)
    areas = [*selective(known, config.confidence)]
    contents = ReportContents(
        title, variants, config, about, shown, findings, missing, unread, grid,
        [row for row, _ in areas],
    )  # fmt: skip
    out = run / "report"
    write_csv(out / "results.csv", Result, findings.results)
    write_csv(out / "comparisons.csv", Comparison, findings.comparisons)
    write_csv(out / "trends.csv", Trend, findings.trends)
    write_csv(out / "per_seed.csv", SeedValue, [*_per_seed(known, names)])
    published = {variant.name: variant.published.rows for variant in variants}
    (out / "published.csv").unlink(missing_ok=True)
    if config.published:
        write_csv(out / "published.csv", Beside, beside(findings.results, published))
    for name, kind, rows in (("marginals", Marginal, grid[0]), ("effects", Effect, grid[1])):
        (out / f"{name}.csv").unlink(missing_ok=True)  # an earlier recipe may have had a grid
        if rows:
            write_csv(out / f"{name}.csv", kind, rows)
    _write_selective(out, areas, config.confidence)
    plots = _plots(contents) | {"risk-coverage": _curves(areas)}
    _write_figures(out, plots, config)
    for form, (name, write) in TABLES.items():
        (out / name).unlink(missing_ok=True)
        if form in config.formats:
            _write(out / name, write(contents))
    page = html(
        contents,
        [plot for plot in plots.values() if plot],
        read_answers(run, benchmarks_read),
    )
    _write(out / "report.html", page)
    return sentences(unread)


TABLES = {"markdown": ("report.md", markdown), "latex": ("report.tex", latex)}
"""Format -> file name, and what returns its content."""


def chosen(benchmarks: Sequence[BenchmarkScores], metrics: Sequence[str]) -> list[BenchmarkScores]:
    """Return the benchmarks with ``metrics`` as their headline; without metrics, as they are.

    Those that have none of the metrics are left out.

    Raises:
        ConfigError: no benchmark has one of the metrics.
    """
    if not metrics:
        return [*benchmarks]
    of_each = {one.name: [*one.metrics, *one.totals] for one in benchmarks}
    known = [*dict.fromkeys(metric for names in of_each.values() for metric in names)]
    for metric in metrics:
        if metric not in known:
            raise unknown("metric in report.metrics", metric, known)
    return [
        replace(one, display=one.display._replace(headline=tuple(shown)))
        for one in benchmarks
        if (shown := [metric for metric in metrics if metric in of_each[one.name]])
    ]


def _per_seed(benchmarks: Sequence[BenchmarkScores], names: Sequence[str]) -> Iterator[SeedValue]:
    for name in names:
        for benchmark in benchmarks:
            for metric in (*benchmark.metrics, *benchmark.totals):
                for seed, value in seed_values(benchmark, metric, name).items():
                    yield SeedValue(name, seed, benchmark.name, metric, value)


def _write_figures(out: Path, plots: Mapping[str, Plot | None], config: ReportConfig) -> None:
    """Write the figures in the formats that are asked for, and delete those of earlier reports."""
    (out / "accuracy.svg").unlink(missing_ok=True)  # an earlier version's name
    for name, plot in plots.items():
        for form in get_args(FigureFormat):
            path = out / f"{name}.{form}"
            path.unlink(missing_ok=True)
            if plot and form in config.figures:
                with written_aside(path) as file:
                    file.buffer.write(plot.drawing.saved(form))


def _plots(contents: ReportContents) -> dict[str, Plot | None]:
    """Return file name -> plot, or None if there is nothing to draw."""
    variants = contents.variants
    results = [result for result in contents.findings.results if not isnan(result.value)]
    displays = {benchmark.name: benchmark.display for benchmark in contents.benchmarks}
    bars = f"with {100 * contents.config.confidence:g} % intervals"
    if any(result.seeds > 1 for result in results):
        bars += "; a grey dot is one seed"
    metrics = contents.config.metrics
    shown = (
        ", ".join(metrics) if metrics else "accuracy where there is one, or else the first metric"
    )
    plots: dict[str, Plot | None] = {
        "at-a-glance": Plot(
            "at-a-glance",
            "At a glance",
            at_a_glance(results, variants, displays, metrics),
            f"Every variant on every benchmark: {shown.replace('_', ' ')}, {bars}.",
        ),
        "axis": None,
        "dose-response": None,
    }
    if (by_base := axis(results, contents.config.axis)) is not None:
        caption = (
            "Strict scores of tuned models over the right first lines of the base that they come "
            f"from, asked in the same format, {bars}. The dotted line is no gain."
        )
        plots["axis"] = Plot("axis", "When does tuning work?", by_base, caption)
    rates = [result for result in results if result.metric in (metrics or REFUSAL_RATES)]
    if (by_dose := dose_response(rates, variants)) is not None:
        caption = f"Refusals over the number of refusals among the examples, {bars}."
        plots["dose-response"] = Plot("dose-response", "Dose and response", by_dose, caption)
    return plots


def _curves(areas: Sequence[tuple[Selective, dict[int, Answers]]]) -> Plot | None:
    """Return the risk-coverage curves of the first metric of right answers of each benchmark."""
    curves: dict[str, dict[str, list[Array]]] = {}
    metrics: dict[str, str] = {}
    for row, models in areas:
        if metrics.setdefault(row.benchmark, row.metric) == row.metric:
            of_variant = curves.setdefault(row.benchmark, {})
            of_variant[row.variant] = [risks(answers) for answers in models.values()]
    drawing = risk_coverage(curves)
    if drawing is None:
        return None
    named = ", ".join(f"{metric} on {benchmark}" for benchmark, metric in metrics.items())
    caption = (
        "Share of wrong answers if a model answers only where it is surest, by the mean "
        f"log-likelihood of its answer ({named}). A flat line says that this tells nothing. Each "
        "line is one seed."
    )
    return Plot("risk-coverage", "Selective answering", drawing, caption)


def _write_selective(
    out: Path, areas: Sequence[tuple[Selective, dict[int, Answers]]], level: float
) -> None:
    for name in ("selective.csv", "abstention.csv"):
        (out / name).unlink(missing_ok=True)  # answers of an earlier run may have had a confidence
    if areas:
        write_csv(out / "selective.csv", Selective, [row for row, _ in areas])
        limits = [one for row, models in areas for one in abstentions(row, models, level)]
        write_csv(out / "abstention.csv", Abstention, limits)


def _write(path: Path, text: str) -> None:
    with written_aside(path) as out:
        out.write(text)
