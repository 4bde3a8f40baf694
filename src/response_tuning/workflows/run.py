"""``rtune run``: every cell of an experiment goes through the stages, then one report is written.

    RUN/<variant>/seed-<n>/{data,finetune,generate,grade}/   RUN/report/   RUN/manifest.json

A stage is skipped when its folder holds exactly what it would make, so that a killed run goes on,
and a finished one is read in seconds. Several processes may run one recipe in one folder at a time.
"""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from response_tuning.artifacts import package_versions, read_json, write_json
from response_tuning.errors import ConfigError, DataError, EngineError, ResponseTuningError
from response_tuning.folders import shared, turn
from response_tuning.registry import unknown
from response_tuning.terminal import command, quiet_libraries
from response_tuning.workflows.cell import check_answering
from response_tuning.workflows.cell_manifest import (
    cell_cost,
    check_left,
    is_answered,
)
from response_tuning.workflows.cells import Worker
from response_tuning.workflows.context import check_context
from response_tuning.workflows.continuing import as_continued, check_continuing
from response_tuning.workflows.experiment import Cell, Experiment, cells, check_experiment
from response_tuning.workflows.followers import Followers
from response_tuning.workflows.judge import Judge, check_judge, check_retry, in_settings
from response_tuning.workflows.names import check_cell, check_names, check_template
from response_tuning.workflows.refine import check_refiner
from response_tuning.workflows.report import (
    RUN_MANIFEST,
    gaps_of,
    print_report,
    shown_benchmarks,
    write_report,
)
from response_tuning.workflows.versions import check_this_version

if TYPE_CHECKING:
    from rich.console import Console


MOST_CELLS = 100
"""Cells that run without being confirmed: a grid grows faster than one thinks."""
Others: TypeAlias = Callable[[], AbstractContextManager[Callable[[], None]]]
"""Starts other processes that share a run; the function that it yields waits for their end."""


def alone() -> AbstractContextManager[Callable[[], None]]:
    """Start no other process."""
    return nullcontext(lambda: None)


def run_experiment(
    experiment: Experiment,
    out: Path,
    console: "Console",
    *,
    only: Sequence[str] = (),
    retry_filtered: bool = False,
    others: Others = alone,
) -> bool:
    """Run every free cell, or those that ``only`` names, then report; return if rates are known.

    It skips a cell that another process is using. An answer or a verdict that a content
    filter withheld is asked for again with ``retry_filtered``. ``others`` starts processes that
    share the run.

    Raises:
        ConfigError: a name is unknown, a folder holds another run, or ``only`` leaves cells that
            were made with other settings.
        EngineError: some prompts got no answer; the same command asks them again.
    """
    every = checked(experiment)
    chosen = chosen_of(every, only)
    check_judged(experiment, chosen)
    # Before the libraries, which take seconds.
    console.print(f"{len(chosen)} of {len(every)} cells, in {out}", highlight=False, soft_wrap=True)
    from response_tuning.finetune.processes import is_first

    quiet_libraries()
    check_filters(experiment, chosen, retry_filtered=retry_filtered)
    followers = Followers([as_continued(cell, every, out) for cell in chosen])
    if not is_first():
        followers.follow(out, console)
        return True
    read = [part for cell in every for part in (cell.data, cell.finetune, cell.generate.settings)]
    with shared(out, experiment.grade, *read):
        check_this_version(every, out)
        check_continuing(every, chosen, out)
        check_left([cell for cell in every if cell not in chosen], experiment, out)
        judge = Judge(experiment.grade.judge, console, retry_filtered=retry_filtered)
        before = manifest_before(out)
        costs = before.get("cells") if isinstance(before.get("cells"), dict) else {}
        worker = Worker(
            experiment, every, out, console, judge, followers, retry_filtered, costs or {}
        )
        known = _run(worker, chosen, before, others)
        followers.call(tune=False)  # nothing was left to tune
        return known


def _run(worker: Worker, chosen: Sequence[Cell], before: Mapping[str, Any], others: Others) -> bool:
    import torch

    experiment, out, console = worker.experiment, worker.run, worker.console
    if experiment.threads is not None:
        torch.set_num_threads(experiment.threads)
    began = time.monotonic()
    manifest = begun(experiment, chosen, before)
    console.print(f"device: {manifest['device']}", highlight=False)
    _check_models(chosen, out)
    check_context((cell for cell in chosen if not is_answered(cell, experiment, out)), experiment)

    def note() -> None:
        # Only at the end over another experiment's manifest: a later cell may still be refused.
        if before.get("experiment") in (None, manifest["experiment"]):
            with turn(out):
                write_json(out / RUN_MANIFEST, manifest | {"cells": _costs(worker.every, out)})

    with others() as wait:
        in_use = worker.work(chosen, note)
        wait()
    if others is not alone:
        # What they had then is whole now, or one of them failed at it: it is tried once more.
        in_use = worker.work([cell for cell in chosen if cell.name in in_use], note)
    known = conclude(experiment, worker.every, out, manifest, console)
    if in_use:
        console.print(
            f"in use by other processes: {', '.join(in_use)}; the last process to finish reports "
            "on all cells",
            highlight=False,
            soft_wrap=True,
        )
    console.print(
        f"{time.monotonic() - began:.0f} s, {_peak_memory_gib():.1f} GiB of memory at most",
        highlight=False,
    )
    return known


def conclude(
    experiment: Experiment,
    every: Sequence[Cell],
    out: Path,
    manifest: Mapping[str, Any],
    console: "Console",
) -> bool:
    """Write and print the report of all whole cells, and the run's manifest; see run_experiment."""
    with turn(out):
        gaps = gaps_of(experiment, every, out)
        unknown_rates = write_report(experiment, every, out, gaps, manifest)
        status = {"status": "running", "incomplete": gaps} if gaps else {"status": "finished"}
        about = {**manifest, "cells": _costs(every, out), **status}
        write_json(out / RUN_MANIFEST, about | {"peak_memory_gib": _peak_memory_gib()})
        print_report(experiment, every, out, gaps, unknown_rates, console)
    return not unknown_rates


def check_number(experiment: Experiment, only: Sequence[str], confirmed: int | None) -> None:
    """Refuse more cells than ``MOST_CELLS`` unless their number is ``confirmed``.

    Raises:
        ConfigError: it is not, or there is another number of cells.
    """
    count = len(chosen_of(cells(experiment), only))
    if confirmed is not None and confirmed != count:
        raise ConfigError(f"--cells {confirmed}: there are {count}; look at them with --dry-run")
    if confirmed is None and count > MOST_CELLS:
        raise ConfigError(
            f"{count} cells, more than {MOST_CELLS}: look at them and at their cost with "
            f"--dry-run, and then confirm their number with --cells {count}"
        )


def chosen_of(every: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """Return the cells that ``only`` names, one by one or by where they lie; by default all.

    Raises:
        ConfigError: no cell, no variant and no value of the grid has such a name.
    """
    names = [(cell.variant, cell.name, *cell.place.values()) for cell in every]
    known = [*dict.fromkeys(name for of_cell in names for name in of_cell)]
    for name in only:
        if name not in known:
            raise unknown("cell", name, known)
    return [
        cell for cell, of_cell in zip(every, names, strict=True) if not only or {*of_cell} & {*only}
    ]


def _check_models(chosen: Sequence[Cell], out: Path) -> None:
    """Refuse a model or a setting of training before hours of other cells' training."""
    from response_tuning.finetune.checks import check
    from response_tuning.models.inference import check_loadable

    for cell in chosen:
        if cell.tuned:
            check(cell.finetune, cell.folder(out))
        elif cell.local:
            check_loadable(cell.finetune.base_model, cell.finetune.base_revision)
            check_template(cell)


def manifest_before(out: Path) -> dict[str, Any]:
    """Return the manifest that the folder of a run has, if any.

    Raises:
        DataError: it is damaged.
    """
    path = out / RUN_MANIFEST
    try:
        return read_json(path) if path.exists() else {}
    except DataError as error:
        raise DataError(f"{error}; delete it: the same command writes it again") from error


def _costs(every: Sequence[Cell], out: Path) -> dict[str, dict[str, float]]:
    """Return the seconds of the stages of each cell that has any."""
    costs = {cell.name: cell_cost(cell, out) for cell in every}
    return {name: cost for name, cost in costs.items() if cost}


def check_filters(experiment: Experiment, chosen: Sequence[Cell], *, retry_filtered: bool) -> None:
    """Refuse ``retry_filtered`` if nothing that is asked for has a content filter.

    Raises:
        ConfigError: nothing has.
    """
    engines = {cell.generate.engine for cell in chosen}
    refined = [cell.data.refinement for cell in chosen if cell.data and cell.data.refinement]
    engines |= {refinement.engine for refinement in refined}
    check_retry(experiment.grade.judge, engines, retry_filtered=retry_filtered)


def check_judged(experiment: Experiment, chosen: Sequence[Cell]) -> None:
    """Refuse a benchmark that needs a judge and has none, before its answers are paid for.

    Raises:
        ConfigError: one line that says which judge it needs.
    """
    from response_tuning.grade import lacks_judge

    benchmarks = dict.fromkeys(name for cell in chosen for name in cell.benchmarks)
    if lack := lacks_judge(benchmarks, experiment.grade):
        raise ConfigError(lack)


def checked(experiment: Experiment, no_key: list[str] | None = None) -> list[Cell]:
    """Return the cells, after every name and setting in them has been checked.

    What a server lacks to be asked, such as a key, is appended to ``no_key``, if that is given.

    Raises:
        ConfigError: one of them is impossible or has no effect.
        EngineError: a server cannot be asked.
    """
    from response_tuning.grade import check_effect, check_metrics, open_benchmark, open_lm_eval
    from response_tuning.report import check_published
    from response_tuning.workflows.lm_eval import check_core

    every = cells(experiment)
    check_experiment(experiment, every)
    check_continuing(every, every, Path())
    _asked(partial(check_judge, experiment.grade.judge), no_key)
    check_effect(experiment.benchmarks, experiment.grade)
    for cell in every:
        _asked(partial(check_answering, cell, Path()), no_key, "generate.settings")
        _asked(partial(check_refiner, cell.data), no_key, "data.refinement.settings")
        check_cell(cell)
        if cell.generate.template is not None:
            check_names(cell.finetune.model_copy(update={"template": cell.generate.template}))
    check_core([name for name in experiment.benchmarks if open_lm_eval(name)])
    for benchmark in experiment.benchmarks:
        if open_lm_eval(benchmark) is None:
            # Read and discarded: a missing setting or a bad row fails here, before training.
            open_benchmark(benchmark, experiment.grade).items()
    check_metrics(experiment.benchmarks, experiment.grade, experiment.report)
    check_published(experiment.report, [*shown_benchmarks(experiment)])
    return every


def _asked(check: Callable[[], None], no_key: list[str] | None, section: str | None = None) -> None:
    """Check a server; in an error, settings of ``section`` replace flags of an engine.

    Settings of ``generate`` have flags in ``rtune eval``, but for those of a server.
    """
    try:
        check()
    except ResponseTuningError as error:
        line = str(error)
        if section and (isinstance(error, EngineError) or section != "generate.settings"):
            line = in_settings(line, section)
        if no_key is None or not isinstance(error, EngineError):
            raise type(error)(line) from error
        if line not in no_key:
            no_key.append(line)


def begun(
    experiment: Experiment, chosen: Sequence[Cell], before: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the manifest of a run that has begun; ``before`` is the one in its folder, if any.

    Command and date are those that began the run: whatever continues it leaves its report as it is.
    """
    content = experiment.model_dump(mode="json")
    origin = {"command": command(), "date": datetime.now(UTC).date().isoformat()}
    if before.get("experiment") == content:
        origin |= {key: before[key] for key in origin if key in before}
    return {
        "status": "running",
        **origin,
        "experiment": content,
        "packages": package_versions(),
        "device": device_of(chosen),
    }


def device_of(chosen: Sequence[Cell]) -> str:
    """Return the device of the run, and the precision in which it computes."""
    import torch

    on_gpu = torch.cuda.is_available() and any(cell.finetune.device != "cpu" for cell in chosen)
    if on_gpu:
        short = torch.cuda.is_bf16_supported()
        return f"{torch.cuda.get_device_name()}, {'bfloat16' if short else 'float32'}"
    short = all(cell.finetune.precision == "bfloat16" for cell in chosen)
    precision = "bfloat16" if short else "float32"
    return f"cpu ({platform.machine()}, {torch.get_num_threads()} threads), {precision}"


def _peak_memory_gib() -> float:
    """Return the largest resident set of this process."""
    from response_tuning.finetune.memory import peak_memory

    return round(peak_memory() / 2**30, 2)
