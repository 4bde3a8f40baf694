"""A report on a run: read, compare, and write tables, plots and a page."""

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path

from response_tuning.artifacts import written_aside
from response_tuning.metrics import Display
from response_tuning.report.browser import browser_json
from response_tuning.report.comparison import check, compare, places_of, with_each_pair
from response_tuning.report.grid import Effect, Marginal, over_grid
from response_tuning.report.joined import Variant
from response_tuning.report.page import Plot, ReportContents, html, markdown
from response_tuning.report.plots import accuracy, axis, dose_response
from response_tuning.report.reading import read_scores
from response_tuning.report.tables import Comparison, Result, Trend, write_csv
from response_tuning.report.unreadable import as_results, sentences, unknown_rates, without
from response_tuning.report_config import ReportConfig


def report(
    run: Path,
    variants: Sequence[Variant],
    config: ReportConfig,
    notes: Sequence[str] = (),
    seeds: Mapping[str, Sequence[int]] | None = None,
    benchmarks: Mapping[str, Display] | None = None,
) -> list[str]:
    """Compare the graded ``variants`` of a run and write ``run/report/``.

    ``notes`` are sentences for the top of the page. ``seeds`` of each variant, and ``benchmarks``,
    are those to read, by default all; ``benchmarks`` gives their order and how each is shown.
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
    unknown = unknown_rates(benchmarks_read)
    known = [without(benchmark, unknown) for benchmark in benchmarks_read]
    findings = compare(known, variants, config)
    findings.results.extend(as_results(benchmarks_read, unknown))
    findings.results.sort(key=lambda result: names.index(result.variant))
    title = f"Report on {run.resolve().name}"
    grid = over_grid(known, variants, config)
    contents = ReportContents(
        title, variants, config, notes, known, findings, missing, unknown, grid
    )
    out = run / "report"
    write_csv(out / "results.csv", Result, findings.results)
    write_csv(out / "comparisons.csv", Comparison, findings.comparisons)
    write_csv(out / "trends.csv", Trend, findings.trends)
    for name, kind, rows in (("marginals", Marginal, grid[0]), ("effects", Effect, grid[1])):
        (out / f"{name}.csv").unlink(missing_ok=True)  # an earlier recipe may have had a grid
        if rows:
            write_csv(out / f"{name}.csv", kind, rows)
    plots = _plots(contents)
    for name, plot in plots.items():
        (out / name).unlink(missing_ok=True)  # an earlier report may have had a series that is gone
        if plot:
            _write(out / name, plot.svg)
    _write(out / "report.md", markdown(contents))
    page = html(
        contents,
        [plot for plot in plots.values() if plot],
        lambda room: browser_json(run, benchmarks_read, room),
    )
    _write(out / "report.html", page)
    return sentences(unknown)


def _plots(contents: ReportContents) -> dict[str, Plot | None]:
    """Return file name -> plot, or None if there is nothing to draw."""
    variants = contents.variants
    results = [result for result in contents.findings.results if not isnan(result.value)]
    displays = {benchmark.name: benchmark.display for benchmark in contents.benchmarks}
    bars = f"with {100 * contents.config.confidence:g} % intervals"
    if any(result.seeds > 1 for result in results):
        bars += "; a grey dot is one seed"
    title, drawn = "Accuracy", f"Accuracy of every variant, {bars}."
    if not any(benchmark.accuracy for benchmark in contents.benchmarks):
        title, drawn = "At a glance", f"The first metric of every benchmark, {bars}."
    plots: dict[str, Plot | None] = {
        "accuracy.svg": Plot(title, accuracy(results, variants, displays), drawn),
        "axis.svg": None,
        "dose-response.svg": None,
    }
    if (by_base := axis(results, contents.config.axis)) is not None:
        caption = (
            "Strict scores of tuned models over the right first lines of the base that they come "
            f"from, asked in the same format, {bars}. The dotted line is no gain."
        )
        plots["axis.svg"] = Plot("When does tuning work?", by_base, caption)
    if (by_dose := dose_response(results, variants)) is not None:
        caption = f"Refusals over the number of refusals among the examples, {bars}."
        plots["dose-response.svg"] = Plot("Dose and response", by_dose, caption)
    return plots


def _write(path: Path, text: str) -> None:
    with written_aside(path) as out:
        out.write(text)
