"""``rtune report``: the cells of a run that are whole become one report."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from response_tuning.artifacts import read_json
from response_tuning.errors import ConfigError, DataError
from response_tuning.folders import turn
from response_tuning.report_config import ReportConfig, of_this_version
from response_tuning.workflows import grade
from response_tuning.workflows.bibliography import write_references
from response_tuning.workflows.cell_manifest import cell_training, lacking, other_bases
from response_tuning.workflows.experiment import Cell, Experiment, cells, series
from response_tuning.workflows.predict import audit_sentences, checked, write_audit
from response_tuning.workflows.provenance import provenance
from response_tuning.workflows.published import published_beside
from response_tuning.workflows.versions import check_one_version

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.metrics import Display
    from response_tuning.report import Training, Variant

RUN_MANIFEST = "manifest.json"


def gaps_of(experiment: Experiment, every: Sequence[Cell], out: Path) -> dict[str, str]:
    """Return the cells that are not whole, and what each lacks."""
    reasons = {cell.name: lacking(cell, experiment, out) for cell in every}
    reasons |= other_bases([cell for cell in every if not reasons[cell.name]], out)
    return {name: reason for name, reason in reasons.items() if reason}


def report_run(
    run: Path, console: "Console", changes: Mapping[str, Any] = MappingProxyType({})
) -> bool:
    """Write the report of a run again, of the cells that are whole; return if rates are known.

    ``changes`` are settings of ``ReportConfig`` that override those of the run.

    Raises:
        DataError: ``run`` holds no run, or no cell of it is whole.
        ConfigError: its manifest is of another version, cells are of two versions, or a setting is
            impossible.
    """
    from response_tuning.report import check_published
    from response_tuning.validation import build

    content = read_json(run / RUN_MANIFEST)
    if "experiment" not in content and "settings" in content:
        raise ConfigError(
            f"{run}: holds a tuned model, not a run of a recipe; give the folder of an 'rtune run'"
        )
    settings = read_json(run / RUN_MANIFEST, "experiment")["experiment"]
    if isinstance(settings, dict) and isinstance(settings.get("report"), dict):
        settings = settings | {"report": of_this_version(settings["report"])}
    experiment = build(Experiment, settings, str(run / RUN_MANIFEST))
    overridden = {**experiment.report.model_dump(), **changes}
    experiment = experiment.model_copy(
        update={"report": build(ReportConfig, overridden, "rtune report")}
    )
    every = cells(experiment)
    check_published(experiment.report, [*shown_benchmarks(experiment)])
    # Processes that share the run would otherwise write its report at the same time.
    with turn(run):
        gaps = gaps_of(experiment, every, run)
        if len(gaps) == len(every):
            name, reason = next(iter(gaps.items()))
            raise DataError(
                f"{run}: no cell is whole, the first, {name}, because it is {reason}; continue "
                "with 'rtune run'"
            )
        unknown_rates = write_report(experiment, every, run, gaps, content)
    print_report(experiment, every, run, gaps, unknown_rates, console)
    return not unknown_rates


def write_report(
    experiment: Experiment,
    every: Sequence[Cell],
    run: Path,
    gaps: Mapping[str, str],
    manifest: Mapping[str, Any],
) -> list[str]:
    """Write the report of the cells without ``gaps``; return a sentence per unknown rate.

    ``manifest`` belongs to the run: the report names its origin from it.
    """
    from response_tuning.report import About, report

    whole = [cell for cell in every if cell.name not in gaps]
    if not whole:
        return []
    check_one_version(whole, run)
    judged = grade.about_judge(experiment.benchmarks, experiment.grade)
    audit = checked(run, whole)
    notes = (*_gap_sentences(gaps), *experiment.notes)
    unknown_rates = report(
        run,
        _with_published(_variants(experiment, every, run), experiment, every),
        experiment.report,
        About((*notes, *judged, *audit_sentences(run, audit)), provenance(manifest, whole, run)),
        {cell.variant: [c.seed for c in whole if c.variant == cell.variant] for cell in every},
        shown_benchmarks(experiment),
    )
    write_references(whole, run / "report" / "references.bib")
    write_audit(run, audit)
    return unknown_rates


def shown_benchmarks(experiment: Experiment) -> "dict[str, Display]":
    """Return how the report shows each benchmark."""
    return grade.shown_benchmarks(experiment.benchmarks, experiment.grade)


def _with_published(
    variants: "Sequence[Variant]", experiment: Experiment, every: Sequence[Cell]
) -> "list[Variant]":
    """Return the variants with the published numbers that belong beside them."""
    first = {cell.variant: cell for cell in reversed(every)}
    return [
        replace(
            variant,
            published=published_beside(experiment, every, first[variant.name], variant.training),
        )
        for variant in variants
    ]


def _gap_sentences(gaps: Mapping[str, str]) -> list[str]:
    """Return a sentence for each reason why cells are not in the report."""
    return [
        f"Not in this report: {', '.join(n for n, other in gaps.items() if other == reason)} "
        f"({reason})."
        for reason in dict.fromkeys(gaps.values())
    ]


def print_report(
    experiment: Experiment,
    every: Sequence[Cell],
    run: Path,
    gaps: Mapping[str, str],
    unknown_rates: Sequence[str],
    console: "Console",
) -> None:
    """Print the headline numbers of the report, and what it lacks."""
    from response_tuning.report import summary

    if len(gaps) < len(every):
        text = summary(run, _variants(experiment, every, run), shown_benchmarks(experiment))
        console.print(text, highlight=False, soft_wrap=True)
    for sentence in (*_gap_sentences(gaps), *unknown_rates):
        console.print(sentence, style="red", highlight=False, soft_wrap=True)
    if len(gaps) < len(every):
        console.print(f"report: {run / 'report' / 'report.html'}", highlight=False, soft_wrap=True)


def _variants(experiment: Experiment, every: Sequence[Cell], run: Path) -> "list[Variant]":
    from response_tuning.report import Variant

    of_series, places = series(every), experiment.places
    labels = {cell.variant: cell.label for cell in every}
    found: dict[str, list[Training]] = {variant: [] for variant in labels}
    for cell in every:
        if (training := cell_training(cell, run)) is not None:
            found[cell.variant].append(training)
    return [
        Variant(variant, label, name, dose, tuple(found[variant]), places[variant])
        for variant, label in labels.items()
        for name, dose in [of_series.get(variant, ("", None))]
    ]
