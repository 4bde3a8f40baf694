"""The cells of a run, shared by processes: each takes the next free one.

A cell's lock is all that processes have in common, so that they may run on several machines with
one disk. No process waits for another: it passes over a cell that is in use, and tries it again
once, after the others. Whoever has that cell takes it to its end.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.errors import EngineError, ResponseTuningError
from response_tuning.folders import free_folder
from response_tuning.grade.benchmark import OFFLINE
from response_tuning.workflows import grade
from response_tuning.workflows.cell import tune_and_answer
from response_tuning.workflows.cell_manifest import (
    ANSWERED,
    GRADED,
    cell_cost,
    is_answered,
    lacking,
    write_cell_manifest,
)
from response_tuning.workflows.continuing import as_continued, in_order, is_ready
from response_tuning.workflows.data import DATA, run_data
from response_tuning.workflows.experiment import Cell, Experiment, with_reference
from response_tuning.workflows.followers import Followers
from response_tuning.workflows.holders import held
from response_tuning.workflows.judge import Judge
from response_tuning.workflows.refine import rewriting_of

if TYPE_CHECKING:
    from rich.console import Console


@dataclass
class Worker:
    """One process of a run, and which cells it has done."""

    experiment: Experiment
    every: Sequence[Cell]
    """All cells of the experiment."""
    run: Path
    console: "Console"
    judge: Judge
    followers: Followers
    """Processes that tune a cell with this one."""
    retry_filtered: bool = False
    costs_before: dict[str, dict[str, float]] = field(default_factory=dict)
    """Cell -> seconds of its stages, from a manifest of the run by an earlier version."""
    _new: list[Cell] = field(default_factory=list)
    """Cells that had no data before."""
    _costs: dict[str, dict[str, float]] = field(default_factory=dict)
    _prepared: set[str] = field(default_factory=set)
    _answered: set[str] = field(default_factory=set)
    _graded: set[str] = field(default_factory=set)
    _in_use: set[str] = field(default_factory=set)

    def work(self, chosen: Sequence[Cell], on_answered: Callable[[], None]) -> list[str]:
        """Take every free cell through its stages; return the names of those in use elsewhere.

        ``on_answered`` is called after each cell that has its answers.

        Raises:
            ConfigError: a cell's folder holds another run.
            EngineError: some prompts got no answer; the same command asks them again.
        """
        with self._nothing_left_if_refused():
            for cell in (cell for cell in chosen if cell.data is not None):
                # All data first: unusable sources show before hours of training.
                with free_folder(cell.folder(self.run)) as is_free:
                    if is_free:
                        self._prepare(cell)
            for cell in self._in_turn(in_order(chosen, self.every)):
                with self._taken(cell) as is_free:
                    self._print_turn(cell, chosen, is_free)
                    if is_free:
                        self._answer(cell)
                        if self.experiment.grade.judge.engine == OFFLINE:
                            self._grade(cell)
                if is_free:
                    on_answered()
                else:
                    self._in_use.add(cell.name)
            # With a judge, grades come last: it may be a model that needs the memory that training
            # takes, a variant may be its reference, and a judge that fails must not stop training.
            return [cell.name for cell in chosen if not self._complete(cell)]

    @contextmanager
    def _taken(self, cell: Cell) -> Iterator[bool]:
        """Lock a cell's folder unless another process has it, or one it needs; yield whether so."""
        folder = cell.folder(self.run)
        with free_folder(folder) as is_free, held(folder) if is_free else nullcontext():
            yield is_free and is_ready(cell, self.every, self.run)

    def _in_turn(self, chosen: Sequence[Cell]) -> Iterator[Cell]:
        """Yield cells; last those whose answers another process is getting at another seed.

        An untuned greedy model answers all seeds alike, and answers are copied where they are
        finished: see ``cell._earlier_completions``. Both processes would ask for all of them now.
        """
        later = []
        for cell in chosen:
            alike = {other.name for other in self.every if other.variant == cell.variant}
            if self._in_use & alike and not cell.tuned and not cell.generate.temperature:
                later.append(cell)
            else:
                yield cell
        yield from later

    def _print_turn(self, cell: Cell, chosen: Sequence[Cell], is_free: bool) -> None:
        place = f"[{[*chosen].index(cell) + 1}/{len(chosen)}]"
        elsewhere = "" if is_free else ": in use by another process"
        line = f"{place} {cell.variant}, seed {cell.seed}{elsewhere}"
        self.console.print(line, style="bold" if is_free else None, highlight=False)

    def _prepare(self, cell: Cell) -> None:
        folder = cell.folder(self.run) / DATA
        if cell.data is None or cell.name in self._prepared:
            return
        if not folder.exists():
            self._new.append(cell)
        how = rewriting_of(
            cell, self.every, self.run, self.console, retry_filtered=self.retry_filtered
        )
        run_data(cell.data, folder, how)
        self._prepared.add(cell.name)

    def _answer(self, cell: Cell) -> None:
        self._prepare(cell)
        tuned = as_continued(cell, self.every, self.run)
        self._costs[cell.name] = tune_and_answer(
            tuned,
            self.experiment,
            self.run,
            self.console,
            self.followers,
            retry_filtered=self.retry_filtered,
        )
        if not is_answered(cell, self.experiment, self.run):
            self._record(cell, ANSWERED)
        self._answered.add(cell.name)

    def _complete(self, cell: Cell) -> bool:
        """Do what a cell still lacks; return False if another process has it."""
        if cell.name in self._graded:
            return True
        if cell.name not in self._answered and not lacking(cell, self.experiment, self.run):
            return True  # another process did all of it
        with self._taken(cell) as is_free:
            if is_free:
                if cell.name not in self._answered:
                    self._answer(cell)
                self._grade(cell)
        return is_free or not lacking(cell, self.experiment, self.run)

    def _grade(self, cell: Cell) -> None:
        from response_tuning.grade import averages, open_lm_eval

        reference = self._reference(cell)
        if reference is not None and not is_answered(reference, self.experiment, self.run):
            self.console.print(
                f"{cell.name} is not graded yet: {reference.name}, its reference, has no answers",
                highlight=False,
                soft_wrap=True,
            )
            return
        folder = cell.folder(self.run)
        for benchmark in cell.benchmarks:
            if open_lm_eval(benchmark) is None:
                config = with_reference(self.experiment, cell, benchmark, self.run)
                grade.grade_answers(benchmark, config, folder, self.judge)
        # Averages read the grades that are written above, so they come last.
        for average in averages(cell.benchmarks, self.experiment.grade):
            grade.write_average(average, folder)
        self._record(cell, GRADED)
        self._graded.add(cell.name)

    def _reference(self, cell: Cell) -> Cell | None:
        """Return the cell that a judge compares ``cell`` with; None if no cell is the reference."""
        name = self.experiment.references.get(cell.variant)
        of_seed = (other for other in self.every if other.seed == cell.seed)
        return next((other for other in of_seed if other.variant == name), None)

    def _record(self, cell: Cell, status: str) -> None:
        now = self._costs[cell.name]
        before = cell_cost(cell, self.run) or self.costs_before.get(cell.name, {})
        write_cell_manifest(cell, self.experiment, self.run, status, _longest(now, before))

    @contextmanager
    def _nothing_left_if_refused(self) -> Iterator[None]:
        """Delete the data of cells that were not tuned if the experiment is refused.

        An engine that gives no answer refuses nothing: the same command asks again. Data that
        another process uses by now are its own.
        """
        from response_tuning.finetune.run_folder import MANIFEST, forget

        try:
            yield
        except EngineError:
            raise
        except ResponseTuningError:
            for folder in (cell.folder(self.run) for cell in self._new):
                with free_folder(folder) as is_free:
                    if is_free and not (folder / "finetune" / MANIFEST).exists():
                        forget(folder / "finetune", folder / DATA)
                        shutil.rmtree(folder / DATA, ignore_errors=True)
            raise


def _longest(now: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """Return the seconds of each stage; a stage that was skipped now took its time before."""
    return {stage: max(seconds, before.get(stage, 0.0)) for stage, seconds in now.items()}
