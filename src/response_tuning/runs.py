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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning.artifacts import (
    Sampling,
    digest,
    file_digest,
    package_versions,
    read_json,
    write_json,
    write_jsonl,
)
from response_tuning.errors import EngineError
from response_tuning.experiments import Cell, Experiment, cells, series
from response_tuning.pipeline import check_names, run_data
from response_tuning.terminal import progress_bar, quiet_libraries

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.grade import Benchmark
    from response_tuning.report import Variant

MANIFEST = "manifest.json"
JOURNAL = "completions.journal"
"""Of all seeds of a variant, so that an untuned model is asked once."""


def run_experiment(experiment: Experiment, out: Path, console: "Console") -> None:
    """Run every cell, then report.

    Raises:
        ConfigError: a name is unknown, or a folder holds another run.
        EngineError: some prompts got no answer; the same command asks them again.
    """
    import torch

    from response_tuning.finetune.base import architecture

    quiet_libraries()
    found = _checked(experiment)
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
        architecture(cell.finetune)
        if cell.data is not None:
            run_data(cell.data, cell.folder(out) / "data")
    for number, cell in enumerate(found, start=1):
        console.print(
            f"[{number}/{len(found)}] {cell.variant}, seed {cell.seed}",
            style="bold",
            highlight=False,
        )
        name = f"{cell.variant}/seed-{cell.seed}"
        cost = _run_cell(cell, experiment.benchmarks, out, console)
        manifest["cells"][name] = _dearer(cost, there.get("cells", {}).get(name, {}))
        if there.get("experiment") in (None, manifest["experiment"]):
            write_json(out / MANIFEST, manifest)  # else at the end: a later cell may be refused
    _report(experiment, found, out)
    manifest |= {"status": "finished", "peak_memory_gib": _peak_memory_gib()}
    write_json(out / MANIFEST, manifest)
    _print_report(found, out, console)
    console.print(
        f"{time.monotonic() - began:.0f} s, {_peak_memory_gib():.1f} GiB of memory at most",
        highlight=False,
    )


def _dearer(now: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    """Return the seconds of each stage; one that is skipped costs what it cost before."""
    return {stage: max(seconds, before.get(stage, 0.0)) for stage, seconds in now.items()}


def plan_experiment(experiment: Experiment, console: "Console") -> None:
    """Print what ``run_experiment`` would do; nothing is read or written."""
    found = _checked(experiment)
    for cell in found:
        if cell.seed == found[0].seed:
            console.print(f"{cell.variant}: {_described(cell)}", highlight=False, soft_wrap=True)
    items = {name: len(_benchmark(name).items()) for name in experiment.benchmarks}
    tuned = sum(cell.tuned for cell in found)
    for line in (
        f"seeds: {', '.join(map(str, experiment.seeds))}",
        f"benchmarks: {', '.join(f'{name} ({count:,} items)' for name, count in items.items())}",
        f"{len(found)} cells: {tuned} to tune, {len(found) * sum(items.values()):,} answers",
    ):
        console.print(line, highlight=False, soft_wrap=True)


def report_run(run: Path, console: "Console") -> None:
    """Write the report of a run again.

    Raises:
        DataError: ``run`` holds no run.
        ConfigError: its manifest is of another version.
    """
    from response_tuning.configs import build

    content = read_json(run / MANIFEST)
    experiment = build(Experiment, content.get("experiment", {}), str(run / MANIFEST))
    found = cells(experiment)
    _report(experiment, found, run)
    _print_report(found, run, console)


def _report(experiment: Experiment, found: Sequence[Cell], run: Path) -> None:
    from response_tuning.report import report

    report(
        run,
        _variants(found),
        experiment.report,
        experiment.notes,
        experiment.seeds,
        experiment.benchmarks,
    )


def _print_report(found: Sequence[Cell], run: Path, console: "Console") -> None:
    from response_tuning.report import summary

    console.print(summary(run, _variants(found)), highlight=False, soft_wrap=True)
    console.print(f"report: {run / 'report' / 'report.html'}", highlight=False, soft_wrap=True)


def _run_cell(
    cell: Cell, benchmarks: Sequence[str], out: Path, console: "Console"
) -> dict[str, float]:
    """Take one cell through its stages, and return the seconds that each took."""
    from response_tuning.finetune import finetune

    folder = cell.folder(out)
    seconds = {}
    if cell.tuned:
        began = time.monotonic()
        finetune(cell.finetune, folder / "data", folder / "finetune", console)
        seconds["finetune"] = round(time.monotonic() - began, 1)
    began = time.monotonic()
    _answer(cell, benchmarks, folder, console)
    seconds["generate"] = round(time.monotonic() - began, 1)
    for benchmark in benchmarks:
        _grade(benchmark, folder)
    return seconds


def _answer(cell: Cell, benchmarks: Sequence[str], folder: Path, console: "Console") -> None:
    """Have the cell's model answer every benchmark."""
    from response_tuning.generate import EngineConfig, generate, open_engine
    from response_tuning.generate.loading import identity

    config = EngineConfig(
        model=str(folder / "finetune") if cell.tuned else cell.finetune.base_model,
        template=None if cell.tuned else cell.generate.template or cell.finetune.template,
        revision=cell.finetune.base_revision,
        device=cell.finetune.device,
        tokens_per_batch=cell.generate.tokens_per_batch,
    )
    sampling = Sampling(
        **cell.generate.model_dump(include={"max_new_tokens", "temperature", "top_p", "stop"}),
        seed=cell.seed if cell.generate.temperature else 0,
    )
    items = {name: _benchmark(name).items() for name in benchmarks}
    asked = {
        "model": identity(str(config.model), config.revision),
        "template": config.template,
        "sampling": sampling.model_dump(mode="json"),
        "items": {
            name: digest(*(item.model_dump_json() for item in requests))
            for name, requests in items.items()
        },
    }
    files = {name: folder / "generate" / f"{name}.jsonl" for name in benchmarks}
    manifest = folder / "generate" / MANIFEST
    if manifest.exists() and read_json(manifest) == asked and all(map(Path.exists, files.values())):
        console.print("answers: there already", highlight=False)
        return
    engine = open_engine("hf", config)
    for name, requests in items.items():
        journal = folder.parent / JOURNAL
        with progress_bar(f"answers to {name}", console) as advance:
            completions = list(generate(engine, requests, journal, sampling, progress=advance))
        failed = [completion for completion in completions if completion.error is not None]
        if failed:
            raise EngineError(
                f"{len(failed)} of {len(completions)} prompts of {name} got no answer, the first "
                f"because: {failed[0].error}; the same command asks them again"
            )
        write_jsonl(files[name], completions)
    write_json(manifest, asked)


def _grade(benchmark: str, folder: Path) -> None:
    from response_tuning.grade import grade

    completions = folder / "generate" / f"{benchmark}.jsonl"
    scores, manifest = folder / "grade" / f"{benchmark}.jsonl", folder / "grade" / MANIFEST
    graded: dict[str, Any] = read_json(manifest) if manifest.exists() else {}
    now = {"completions": file_digest(completions), "rules": package_versions()["response-tuning"]}
    if scores.exists() and graded.get(benchmark) == now:
        return
    grade(benchmark, completions, scores)
    write_json(manifest, graded | {benchmark: now})


def _checked(experiment: Experiment) -> list[Cell]:
    """Return the cells, once every name in them is known."""
    found = cells(experiment)
    for cell in found:
        check_names(cell.finetune)
        if cell.generate.template is not None:
            check_names(cell.finetune.model_copy(update={"template": cell.generate.template}))
    for benchmark in experiment.benchmarks:
        _benchmark(benchmark)
    return found


def _benchmark(name: str) -> "Benchmark":
    from response_tuning.grade import BENCHMARKS

    return BENCHMARKS.get(name)


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
        return f"{cell.finetune.base_model}, not tuned"
    size = f"{cell.data.max_examples:,} of " if cell.data.max_examples else ""
    mixed = cell.data.mixture.refusals
    refusals = f" and {mixed:,} refusals" if mixed else ""
    fresh = " with fresh weights" if cell.finetune.random_init else ""
    return (
        f"{cell.finetune.objective} ({cell.finetune.method}) of {cell.finetune.base_model}{fresh} "
        f"on {size}{cell.data.source}{refusals}"
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
