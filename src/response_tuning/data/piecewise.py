"""A source that is prepared piece by piece, by several processes, and goes on after a kill.

The pieces pass, each by itself, all steps that look at one candidate alone. What is left is quick:
one process reads the pieces in order, and drops duplicates by the digests that they hold.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from response_tuning.artifacts import package_versions, read_json, write_json, written_aside
from response_tuning.configs import DataConfig
from response_tuning.data import chain
from response_tuning.data.columns import Columns
from response_tuning.data.pieces import Piece
from response_tuning.data.records import Aside, line
from response_tuning.data.sources import Source
from response_tuning.data.steps import curation
from response_tuning.data.steps.curation import Candidate
from response_tuning.data.steps.decontamination import Prompts
from response_tuning.data.steps.duplicates import with_digests
from response_tuning.data.workers import Apply
from response_tuning.judging import JudgingConfig

FOLDER = ".pieces"
"""Where the pieces wait for the last step, inside the folder of the examples."""


@dataclass(frozen=True)
class Job:
    """What is done with all pieces; jobs with one key are equal."""

    key: str
    config: DataConfig = field(compare=False)
    prompts: Prompts = field(compare=False)


@lru_cache(maxsize=1)
def steps_of(job: Job) -> chain.Steps:
    """Return the steps of a job, the same at every call: they hold tokenizers and prompts."""
    return chain.steps(job.config, job.prompts)


class Plan(NamedTuple):
    """What the first reading of a source decided."""

    used: Columns
    not_used: list[str]
    rows: list[int]
    """Rows of each piece."""


class Folder:
    """The plan and the finished pieces of one source, on disk."""

    def __init__(self, path: Path, source: Source) -> None:
        self._path = path
        about = {"origin": source.origin, "packages": package_versions()}
        self._about = json.loads(json.dumps(about))  # as it comes back: JSON has no tuples

    def plan(self) -> Plan | None:
        """Return the plan of a killed command; None if there is none, or the source is another."""
        if not (self._path / "plan.json").exists():
            return None
        found = read_json(self._path / "plan.json")
        if {name: found.get(name) for name in self._about} != self._about:
            shutil.rmtree(self._path)
            return None
        used = {name: _frozen(value) for name, value in found["columns"].items()}
        return Plan(Columns(**used), found["not_used"], found["rows"])

    def keep(self, plan: Plan) -> None:
        """Keep the plan for the same command after a kill."""
        content = {"columns": plan.used._asdict(), "not_used": plan.not_used, "rows": plan.rows}
        write_json(self._path / "plan.json", self._about | content)

    def piece(self, number: int) -> Path:
        """Return the file of a finished piece."""
        return self._path / f"{number:06}.tsv"


def _frozen(value: Any) -> Any:  # noqa: ANN401 - whatever JSON can hold
    return tuple(value) if isinstance(value, list) else value


class Task(NamedTuple):
    """What one piece is made into; sent to another process."""

    job: Job
    source: Source
    used: Columns
    selector: str | None
    """Which rows are refusals, if nothing else is used."""
    before: int
    """Number of rows of the sources before this one."""
    judging: JudgingConfig | None = None
    """How a row with a grade becomes a judge's prompts."""


def candidates(
    task: Task, pieces: Sequence[Piece], rows: Sequence[int], folder: Folder, apply: Apply
) -> Iterator[Candidate]:
    """Yield the candidates of all pieces, in order; pieces that are finished are not read again.

    Candidates that a step dropped after duplicates are not dropped yet; see ``late_drops``.

    Raises:
        DataError: a row cannot be read, or a process was killed.
    """
    paths = [folder.piece(number) for number in range(len(pieces))]
    firsts = accumulate(rows[:-1], initial=0)
    for path in apply(partial(prepare_piece, task), pieces, firsts, paths):
        with path.open(encoding="utf-8", newline="\n") as lines:
            yield from map(Aside, lines)


def prepare_piece(task: Task, piece: Piece, first: int, path: Path) -> Path:
    """Write the candidates of one piece to ``path`` after the steps that look at one alone."""
    if path.exists():
        return path
    steps = steps_of(task.job)
    chosen = list(steps.texts) if task.source.are_texts else []
    chosen += [curation.only_refusals(task.selector)] if task.selector else []
    chosen += steps.before
    if not task.job.config.keep_duplicates:
        chosen.append(with_digests())
    found = chain.candidates(task.source, task.used, piece(), first, task.before, task.judging)
    with written_aside(path) as out:
        out.writelines(map(line, chain.passed(found, [*chosen, *steps.after])))
    return path
