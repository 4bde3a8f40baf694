"""``rtune run``: every cell of an experiment goes through the stages, then one report is written.

    RUN/<variant>/seed-<n>/{data,finetune,generate,grade}/   RUN/report/   RUN/manifest.json

A stage is skipped when its folder holds exactly what it would make, so that a killed run goes on,
and a finished one is read in seconds.
"""

import platform
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning.artifacts import package_versions, read_json, write_json
from response_tuning.folders import locked
from response_tuning.terminal import quiet_libraries
from response_tuning.workflows import grade
from response_tuning.workflows.cell import check_answering, tune_and_ask
from response_tuning.workflows.data import DATA, run_data
from response_tuning.workflows.experiment import (
    Cell,
    Experiment,
    cells,
    check_mixtures,
    series,
    with_reference,
)
from response_tuning.workflows.judge import Judge, check_judge, check_retry
from response_tuning.workflows.names import check_names
from response_tuning.workflows.refine import check_refiner, rewriting_of

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.report import Variant


MANIFEST = "manifest.json"


def run_experiment(
    experiment: Experiment, out: Path, console: "Console", *, retry_filtered: bool = False
) -> bool:
    """Run every cell, then report; return whether so much could be read that all rates are known.

    What a filter kept from an answer, or from a verdict, is asked again with ``retry_filtered``.

    Raises:
        ConfigError: a name is unknown, or a folder holds another run, or one in progress.
        EngineError: some prompts got no answer; the same command asks them again.
    """
    quiet_libraries()
    found = _checked(experiment)
    engines = {cell.generate.engine for cell in found}
    engines |= {cell.data.refinement.engine for cell in found if cell.data and cell.data.refinement}
    check_retry(experiment.grade.judge, engines, retry_filtered=retry_filtered)
    read = [part for cell in found for part in (cell.data, cell.finetune, cell.generate.settings)]
    with locked(out, experiment.grade, *read):
        return _run(experiment, found, out, console, retry_filtered=retry_filtered)


def _run(
    experiment: Experiment,
    found: list[Cell],
    out: Path,
    console: "Console",
    *,
    retry_filtered: bool,
) -> bool:
    import torch

    from response_tuning.finetune.base import architecture
    from response_tuning.finetune.checks import check
    from response_tuning.finetune.run_folder import nothing_of_a_refused_run

    if experiment.threads is not None:
        torch.set_num_threads(experiment.threads)
    began = time.monotonic()
    there = read_json(out / MANIFEST) if (out / MANIFEST).exists() else {}
    manifest: dict[str, Any] = {
        "status": "running",
        "experiment": experiment.model_dump(mode="json"),
        "packages": package_versions(),
        "device": _device(found),
        "cells": {},
    }
    console.print(f"device: {manifest['device']}", highlight=False)
    for cell in found:  # all of them first: what is wrong shows before hours of training
        if cell.tuned:
            check(cell.finetune, cell.folder(out))
        elif cell.local:
            architecture(cell.finetune)
    with ExitStack() as prepared:
        for cell in found:
            if cell.data is not None:
                folder = cell.folder(out)
                prepared.enter_context(nothing_of_a_refused_run(folder / DATA, folder / "finetune"))
                how = rewriting_of(cell, found, out, console, retry_filtered=retry_filtered)
                run_data(cell.data, folder / DATA, how)
        for number, cell in enumerate(found, start=1):
            console.print(
                f"[{number}/{len(found)}] {cell.variant}, seed {cell.seed}",
                style="bold",
                highlight=False,
            )
            name = f"{cell.variant}/seed-{cell.seed}"
            cost = tune_and_ask(cell, experiment, out, console, retry_filtered=retry_filtered)
            manifest["cells"][name] = _dearer(cost, _cost_before(there, name))
            if there.get("experiment") in (None, manifest["experiment"]):
                write_json(out / MANIFEST, manifest)  # else at the end: a later cell may be refused
    # Last, for a variant may be compared with another.
    judge = Judge(experiment.grade.judge, console, retry_filtered=retry_filtered)
    _grade(experiment, found, out, judge)
    unknown = _report(experiment, found, out)
    manifest |= {"status": "finished", "peak_memory_gib": _peak_memory_gib()}
    write_json(out / MANIFEST, manifest)
    _print_report(experiment, found, out, unknown, console)
    console.print(
        f"{time.monotonic() - began:.0f} s, {_peak_memory_gib():.1f} GiB of memory at most",
        highlight=False,
    )
    return not unknown


def _cost_before(there: dict[str, Any], name: str) -> dict[str, float]:
    """Return the seconds of a cell's stages as an earlier manifest has them, if it has any."""
    cells_before = there.get("cells")
    found = cells_before.get(name) if isinstance(cells_before, dict) else None
    stages = found.items() if isinstance(found, dict) else ()
    return {stage: seconds for stage, seconds in stages if isinstance(seconds, int | float)}


def _dearer(now: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    """Return the seconds of each stage; one that is skipped costs what it cost before."""
    return {stage: max(seconds, before.get(stage, 0.0)) for stage, seconds in now.items()}


def plan_experiment(experiment: Experiment, console: "Console") -> None:
    """Print what ``run_experiment`` would do; nothing is written."""
    from response_tuning.grade import open_benchmark, open_lm_eval

    found = _checked(experiment)
    for cell in found:
        if cell.seed == found[0].seed:
            console.print(f"{cell.variant}: {_described(cell)}", highlight=False, soft_wrap=True)
    items = {
        name: len(open_benchmark(name, experiment.grade).items())
        for name in experiment.benchmarks
        if open_lm_eval(name) is None
    }
    by_lm_eval = [name for name in experiment.benchmarks if open_lm_eval(name)]
    tuned = sum(cell.tuned for cell in found)
    for line in (
        f"seeds: {', '.join(map(str, experiment.seeds))}",
        f"benchmarks: {', '.join(f'{name} ({count:,} items)' for name, count in items.items())}",
        *([f"by lm-eval: {', '.join(by_lm_eval)}"] if by_lm_eval else []),
        f"{len(found)} cells: {tuned} to tune, {len(found) * sum(items.values()):,} answers",
    ):
        console.print(line, highlight=False, soft_wrap=True)


def report_run(run: Path, console: "Console") -> bool:
    """Write the report of a run again; return whether all its rates are known.

    Raises:
        DataError: ``run`` holds no run.
        ConfigError: its manifest is of another version.
    """
    from response_tuning.validation import build

    content = read_json(run / MANIFEST, "experiment")
    experiment = build(Experiment, content["experiment"], str(run / MANIFEST))
    found = cells(experiment)
    with locked(run):
        unknown = _report(experiment, found, run)
    _print_report(experiment, found, run, unknown, console)
    return not unknown


def _report(experiment: Experiment, found: Sequence[Cell], run: Path) -> list[str]:
    """Write the report, and return what it says of rates that are not known."""
    from response_tuning.grade import displays
    from response_tuning.report import report

    return report(
        run,
        _variants(found),
        experiment.report,
        (*experiment.notes, *grade.about_judge(experiment.benchmarks, experiment.grade)),
        experiment.seeds,
        displays(experiment.benchmarks, experiment.grade),
    )


def _print_report(
    experiment: Experiment,
    found: Sequence[Cell],
    run: Path,
    unknown: Sequence[str],
    console: "Console",
) -> None:
    from response_tuning.grade import displays
    from response_tuning.report import summary

    shown = displays(experiment.benchmarks, experiment.grade)
    console.print(summary(run, _variants(found), shown), highlight=False, soft_wrap=True)
    for sentence in unknown:
        console.print(sentence, style="red", highlight=False, soft_wrap=True)
    console.print(f"report: {run / 'report' / 'report.html'}", highlight=False, soft_wrap=True)


def _grade(experiment: Experiment, found: Sequence[Cell], out: Path, judge: Judge) -> None:
    from response_tuning.grade import averages, open_lm_eval

    answered = [name for name in experiment.benchmarks if open_lm_eval(name) is None]
    for cell in found:
        folder = cell.folder(out)
        for benchmark in answered:
            config = with_reference(experiment, cell, benchmark, out)
            grade.grade_answers(benchmark, config, folder, judge)
        for average in averages(experiment.benchmarks, experiment.grade):
            grade.write_average(average, folder)


def _checked(experiment: Experiment) -> list[Cell]:
    """Return the cells, once every name in them is known."""
    from response_tuning.grade import (
        check_effect,
        check_metrics,
        open_benchmark,
        open_lm_eval,
    )
    from response_tuning.workflows.lm_eval import check_core

    found = cells(experiment)
    check_mixtures(experiment, found)
    check_judge(experiment.grade.judge)
    check_effect(experiment.benchmarks, experiment.grade)
    for cell in found:
        check_answering(cell, Path())
        check_refiner(cell.data)
        check_names(cell.finetune)
        if cell.generate.template is not None:
            check_names(cell.finetune.model_copy(update={"template": cell.generate.template}))
    check_core([name for name in experiment.benchmarks if open_lm_eval(name)])
    for benchmark in experiment.benchmarks:
        if open_lm_eval(benchmark) is None:
            open_benchmark(benchmark, experiment.grade)
    check_metrics(experiment.benchmarks, experiment.grade, experiment.report)
    return found


def _variants(found: Sequence[Cell]) -> "list[Variant]":
    from response_tuning.report import Variant

    of_series = series(found)
    return [
        Variant(cell.variant, cell.label, *of_series.get(cell.variant, ("", None)))
        for cell in found
        if cell.seed == found[0].seed
    ]


def _described(cell: Cell) -> str:
    if cell.data is None:
        return f"{cell.finetune.base_model}, as it is"
    size = f"{cell.data.max_examples:,} of " if cell.data.max_examples else ""
    mixed = cell.data.mixture.refusals
    refusals = f" and {mixed:,} refusals" if mixed else ""
    refiner = cell.data.refinement
    refined = f", refined by {refiner.settings.model or refiner.engine}" if refiner else ""
    fresh = " with fresh weights" if cell.finetune.random_init else ""
    return (
        f"{cell.finetune.objective} ({cell.finetune.method}) of {cell.finetune.base_model}{fresh} "
        f"on {size}{cell.data.source}{refined}{refusals}"
    )


def _device(found: Sequence[Cell]) -> str:
    """Say what the run computes on and in which precision."""
    import torch

    on_gpu = torch.cuda.is_available() and any(cell.finetune.device != "cpu" for cell in found)
    if on_gpu:
        short = torch.cuda.is_bf16_supported()
        return f"{torch.cuda.get_device_name()}, {'bfloat16' if short else 'float32'}"
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads), float32"


def _peak_memory_gib() -> float:
    """Return the largest resident set of this process, which does all the work."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**30 if sys.platform == "darwin" else 2**20), 2)
