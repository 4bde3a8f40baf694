"""Benchmarks that lm-eval measures: their data, their tasks and their scores.

A task is lm-eval's own: prompt, few-shot examples, choices, metrics. This file says where its rows
come from (a local copy, or the hub at a recorded commit) and how tasks make up a benchmark.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from response_tuning import hub
from response_tuning.artifacts import Score
from response_tuning.configs import GradeConfig
from response_tuning.errors import DataError
from response_tuning.grade.sources import (
    BenchmarkSource,
    SourceRows,
    local_copy,
    read_source,
    spread,
)
from response_tuning.readers import Row, one_line, shown

if TYPE_CHECKING:
    from datasets import Dataset


METRIC_MEANINGS = {
    "acc": "the right choice has the highest log-likelihood",
    "acc_norm": "the right choice has the highest log-likelihood per character of the choice",
    "exact_match_strict": "the last number after 'The final answer is' is the right one",
    "exact_match_flexible": "the last number of the answer is the right one",
}
HarnessTask = Any
"""An ``lm_eval.api.task.ConfigurableTask``."""
ColumnTypes = Mapping[str, type]
"""Column -> type, of a row of a local copy."""

_METRIC_SUFFIXES = {"none": "", "strict-match": "_strict", "flexible-extract": "_flexible"}
_LOCAL_SPLIT = "local"
_SUBJECT = "mmlu_"


@dataclass(frozen=True)
class LmEvalBenchmark:
    """A benchmark that lm-eval measures on the model itself: it has scores and no completions.

    It is registered as it is; see ``grade.benchmark`` for the attributes that every benchmark has.
    """

    name: str
    suite: str
    folder: str
    """Folder of lm-eval's tasks."""
    sources: Mapping[str, BenchmarkSource]
    """lm-eval's task, or its group with a task for each subject -> the rows."""
    columns: Sequence[ColumnTypes]
    """A row of a local copy has the columns of one of them."""
    is_mean_of_tasks: bool = False
    """Whether every task counts the same, however many items it has; otherwise every item does."""
    metrics: tuple[str, ...] = ("acc", "acc_norm")
    prompts: int | None = None
    """Items of the published datasets, which ``planned_prompts`` counts; None if not known."""

    @property
    def headline(self) -> tuple[str, ...]:
        """All metrics are in the report's tables."""
        return self.metrics

    def __call__(self, config: GradeConfig) -> Self:
        """Open the benchmark, as the registry's other entries do; no setting changes it."""
        return self


def read_data(benchmark: LmEvalBenchmark, config: GradeConfig) -> dict[str, SourceRows]:
    """Return the rows and the origin of each source; lm-eval itself reads rows of the hub.

    Raises:
        DataError: a local copy cannot be used, or the hub cannot be reached.
    """
    named, sources = config.paths.get(benchmark.name), benchmark.sources
    if named is not None and len(sources) > 1 and not named.is_dir():
        files = ", ".join(Path(source.local).name for source in sources.values())
        raise DataError(
            f"grade.paths.{benchmark.name}: {named}: expected the folder that holds {files}"
        )
    return {task: _read(source, benchmark.columns, config) for task, source in sources.items()}


def planned_prompts(benchmark: LmEvalBenchmark, config: GradeConfig) -> tuple[int | None, bool]:
    """Return how many items are asked, and whether they were counted in local copies.

    Without copies, it is the number of the published datasets, which are not downloaded; None if
    that is not known.

    Raises:
        DataError: a local copy cannot be used.
    """
    sources = benchmark.sources.values()
    copied = bool(sources) and all(local_copy(source, config) for source in sources)
    count = benchmark.prompts
    if copied:
        count = sum(len(data.rows) for data in read_data(benchmark, config).values())
    if count is not None and config.limit is not None:
        count = min(count, config.limit)
    return count, copied


def load_tasks(
    benchmark: LmEvalBenchmark, data: Mapping[str, SourceRows]
) -> dict[str, HarnessTask]:
    """Return lm-eval's tasks, by their names, on these data.

    Raises:
        DataError: the hub does not give the data, or a local row has an unknown subject.
    """
    import lm_eval.tasks
    from datasets.exceptions import DatasetsError

    folder = Path(lm_eval.tasks.__file__).parent / benchmark.folder
    # This folder alone: to index all of lm-eval's tasks takes seconds.
    manager = lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False)
    subjects = {
        entry.cfg["dataset_name"]: task
        for task, entry in manager.task_index.items()
        if task in manager.all_subtasks and task.startswith(_SUBJECT)
    }
    changed = [change for task, rows in data.items() for change in _changes(task, rows, subjects)]
    group = {"group": benchmark.name, "task": changed}
    try:
        loaded: dict[str, HarnessTask] = manager.load([group])["tasks"]
    except (OSError, DatasetsError) as error:
        raise DataError(
            f"{benchmark.name}: cannot be loaded from the hub: {one_line(error)}; check the "
            "network, or name a folder of local copies with --set grade.data=FOLDER"
        ) from error
    return loaded


def chosen(tasks: Mapping[str, HarnessTask], limit: int | None) -> dict[str, list[int]]:
    """Return the places of the documents to ask, of each task that has any of them."""
    every = [(name, place) for name, task in tasks.items() for place in range(len(task.task_docs))]
    places: dict[str, list[int]] = {}
    for name, place in spread(every, limit):
        places.setdefault(name, []).append(place)
    return places


def scores(
    benchmark: LmEvalBenchmark, samples: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Iterator[Score]:
    """Yield a score for each document and metric that lm-eval logged.

    An id is made of the task, the document's position in its file and a digest of its content.
    """
    for task, logged in samples.items():
        # lm-eval logs a document once for each of its filters, so documents are counted by id.
        documents = len({sample["doc_id"] for sample in logged})
        weight = 1 / documents if benchmark.is_mean_of_tasks else 1
        group = "" if [*benchmark.sources] == [task] else task.removeprefix(_SUBJECT)
        for sample in logged:
            for metric in sample["metrics"]:
                yield Score(
                    item_id=f"{task}-{sample['doc_id']}-{sample['doc_hash'][:12]}",
                    metric=f"{metric}{_METRIC_SUFFIXES[sample['filter']]}",
                    value=float(sample[metric]),
                    explanation=_explained(sample),
                    group=group,
                    weight=weight,
                )


def _read(
    source: BenchmarkSource, columns: Sequence[ColumnTypes], config: GradeConfig
) -> SourceRows:
    if local_copy(source, config) is None:
        assert source.hub_id is not None
        name = source.benchmark
        commit = hub.resolve(source.hub_id, config.revisions.get(name, "main"), name)
        origin = {"hub_id": source.hub_id, "commit": commit, "split": source.split}
        return SourceRows((), origin)
    rows = read_source(source, config)
    for row in rows.rows:
        _check(row, columns)
    return rows


def _check(row: Row, layouts: Sequence[ColumnTypes]) -> None:
    for layout in layouts:
        if all(isinstance(row.fields.get(column), kind) for column, kind in layout.items()):
            return
    wanted = " or ".join(", ".join(layout) for layout in layouts)
    raise DataError(f"{row.where}: expected the columns {wanted}, found {shown(row.fields)}")


def _changes(task: str, data: SourceRows, subjects: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield what is to be changed in the tasks that a source has rows for."""
    if task != "mmlu":
        yield _change(task, data.rows, data.origin)
        return
    for row in data.rows:
        if row.fields["subject"] not in subjects:
            raise DataError(f"{row.where}: MMLU has no subject {shown(row.fields['subject'])}")
    for subject, name in subjects.items():
        rows = tuple(row for row in data.rows if row.fields["subject"] == subject)
        if rows or not data.rows:
            yield _change(name, rows, data.origin)


def _change(task: str, rows: Sequence[Row], origin: Mapping[str, Any]) -> dict[str, Any]:
    """Return what differs from lm-eval's definition of a task: where its documents come from."""
    if not rows:
        return {"task": task, "dataset_kwargs": {"revision": origin["commit"]}}
    splits = dict.fromkeys(("training_split", "validation_split", "fewshot_split"))
    change = {
        "task": task,
        "custom_dataset": _in_memory(rows),
        **splits,
        "test_split": _LOCAL_SPLIT,
    }
    if "gold" in rows[0].fields:  # HellaSwag as lm-eval would make it, so it has nothing to make
        change |= {"process_docs": None, "doc_to_target": "gold"}
    return change


def _in_memory(rows: Sequence[Row]) -> Callable[..., dict[str, "Dataset"]]:
    def dataset(**_: object) -> dict[str, "Dataset"]:
        from datasets import Dataset

        return {_LOCAL_SPLIT: Dataset.from_list([row.fields for row in rows])}

    return dataset


def _explained(sample: Mapping[str, Any]) -> str:
    (first, *_), target = sample["filtered_resps"], sample["target"]
    if isinstance(first, str):
        return f"read {shown(first)}, expected {target}"
    return f"expected {'ABCDEFGH'[int(target)]}"
