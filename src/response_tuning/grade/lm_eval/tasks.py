"""The paper's core capabilities (Table 12) as tasks of lm-eval: their data, and their scores.

A task is lm-eval's own: prompt, few-shot examples, choices, metrics. What is said here is where its
rows are from, a local copy or the hub at a recorded commit, and how tasks make up a benchmark.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning import hub
from response_tuning.artifacts import Score
from response_tuning.configs import GradeConfig
from response_tuning.errors import DataError
from response_tuning.grade.sources import Rows, Source, local_copy, read_source, spread
from response_tuning.readers import Row, one_line, shown

if TYPE_CHECKING:
    from datasets import Dataset


METRICS = {
    "acc": "the right choice has the highest log-likelihood",
    "acc_norm": "the right choice has the highest log-likelihood per character of the choice",
    "exact_match_strict": "the last number after 'The final answer is' is the right one",
    "exact_match_flexible": "the last number of the answer is the right one",
}
Task = Any
"""An ``lm_eval.api.task.ConfigurableTask``."""
Layout = Mapping[str, type]
"""Column -> type, of a row of a local copy."""

_FILTERS = {"none": "", "strict-match": "_strict", "flexible-extract": "_flexible"}
_LOCAL = "local"
_SUBJECT = "mmlu_"


@dataclass(frozen=True)
class Core:
    """One benchmark."""

    folder: str
    """Of lm-eval's tasks."""
    sources: Mapping[str, Source]
    """lm-eval's task, or its group with a task for each subject -> the rows."""
    layouts: Sequence[Layout]
    """A local row is like one of them."""
    mean_of_tasks: bool = False
    """Every task counts the same, however large it is; else every item does."""
    metrics: tuple[str, ...] = ("acc", "acc_norm")


def _source(name: str, file: str, hub_id: str, split: str = "test") -> Source:
    return Source(benchmark=name, local=file, hub_id=hub_id, split=split)


CORE: dict[str, Core] = {
    "core-arc": Core(
        "arc",
        {
            part: _source("core-arc", f"arc/{part}_validation.jsonl", "allenai/ai2_arc")
            for part in ("arc_easy", "arc_challenge")
        },
        [{"question": str, "choices": dict, "answerKey": str}],
        mean_of_tasks=True,
    ),
    "core-gsm8k": Core(
        "gsm8k",
        {"gsm8k_cot_llama": _source("core-gsm8k", "gsm8k/test.jsonl", "openai/gsm8k")},
        [{"question": str, "answer": str}],
        metrics=("exact_match_strict", "exact_match_flexible"),
    ),
    "core-hellaswag": Core(
        "hellaswag",
        {
            "hellaswag": _source(
                "core-hellaswag",
                "hellaswag/hellaswag_val_subset_half.jsonl",
                "Rowan/hellaswag",
                "validation",
            )
        },
        [
            {"query": str, "choices": list, "gold": int},  # as lm-eval makes it of the other
            {"activity_label": str, "ctx_a": str, "ctx_b": str, "endings": list, "label": object},
        ],
    ),
    "core-mmlu": Core(
        "mmlu/default",
        {"mmlu": _source("core-mmlu", "mmlu/test_half.jsonl", "cais/mmlu")},
        [{"subject": str, "question": str, "choices": list, "answer": int}],
        metrics=("acc",),
    ),
    "core-openbookqa": Core(
        "openbookqa",
        {
            "openbookqa": _source(
                "core-openbookqa", "openbookqa/openbookqa_validation.jsonl", "allenai/openbookqa"
            )
        },
        [{"question_stem": str, "choices": dict, "answerKey": str}],
    ),
    "core-piqa": Core(
        "piqa",
        {
            "piqa": _source(
                "core-piqa", "piqa/piqa_validation_half.jsonl", "baber/piqa", "validation"
            )
        },
        [{"goal": str, "sol1": str, "sol2": str, "label": int}],
    ),
}


def read_data(name: str, config: GradeConfig) -> dict[str, Rows]:
    """Return the rows and the origin of each source; rows of the hub are left to lm-eval.

    Raises:
        DataError: a local copy cannot be used, or the hub cannot be reached.
    """
    core, named = CORE[name], config.paths.get(name)
    if named is not None and len(core.sources) > 1 and not named.is_dir():
        files = ", ".join(Path(source.local).name for source in core.sources.values())
        raise DataError(f"grade.paths.{name}: {named}: expected the folder that holds {files}")
    return {task: _read(source, core, config) for task, source in core.sources.items()}


def load_tasks(name: str, data: Mapping[str, Rows]) -> dict[str, Task]:
    """Return lm-eval's tasks, by their names, on these data.

    Raises:
        DataError: the hub cannot give the data, or a local row is of a subject that is none.
    """
    import lm_eval.tasks
    from datasets.exceptions import DatasetsError

    core = CORE[name]
    folder = Path(lm_eval.tasks.__file__).parent / core.folder
    manager = lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False)
    subjects = {
        entry.cfg["dataset_name"]: task
        for task, entry in manager.task_index.items()
        if task in manager.all_subtasks and task.startswith(_SUBJECT)
    }
    changed = [change for task, rows in data.items() for change in _changes(task, rows, subjects)]
    try:
        loaded: dict[str, Task] = manager.load([{"group": name, "task": changed}])["tasks"]
    except (OSError, DatasetsError) as error:
        raise DataError(
            f"{name}: cannot be loaded from the hub: {one_line(error)}; check the network, or name "
            "a folder of local copies with --set grade.data=FOLDER"
        ) from error
    return loaded


def chosen(tasks: Mapping[str, Task], limit: int | None) -> dict[str, list[int]]:
    """Return the places of the documents to ask, of each task that has any of them."""
    every = [(name, place) for name, task in tasks.items() for place in range(len(task.task_docs))]
    places: dict[str, list[int]] = {}
    for name, place in spread(every, limit):
        places.setdefault(name, []).append(place)
    return places


def scores(name: str, samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[Score]:
    """Yield a score for each document and metric that lm-eval logged.

    Ids are made of the task, the document's place in its file and a digest of its content.
    """
    core = CORE[name]
    for task, found in samples.items():
        weight = 1 / len({sample["doc_id"] for sample in found}) if core.mean_of_tasks else 1
        group = "" if [*core.sources] == [task] else task.removeprefix(_SUBJECT)
        for sample in found:
            for metric in sample["metrics"]:
                yield Score(
                    item_id=f"{task}-{sample['doc_id']}-{sample['doc_hash'][:12]}",
                    metric=f"{metric}{_FILTERS[sample['filter']]}",
                    value=float(sample[metric]),
                    explanation=_explained(sample),
                    group=group,
                    weight=weight,
                )


def _read(source: Source, core: Core, config: GradeConfig) -> Rows:
    if local_copy(source, config) is None:
        assert source.hub_id is not None
        commit = hub.resolve(source.hub_id, config.revisions.get(source.benchmark, "main"))
        origin = {"hub_id": source.hub_id, "commit": commit, "split": source.split}
        return Rows((), origin)
    found = read_source(source, config)
    for row in found.rows:
        _check(row, core.layouts)
    return found


def _check(row: Row, layouts: Sequence[Layout]) -> None:
    for layout in layouts:
        if all(isinstance(row.fields.get(column), kind) for column, kind in layout.items()):
            return
    wanted = " or ".join(", ".join(layout) for layout in layouts)
    raise DataError(f"{row.where}: expected the columns {wanted}, found {shown(row.fields)}")


def _changes(task: str, data: Rows, subjects: Mapping[str, str]) -> Iterator[dict[str, Any]]:
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
    change = {"task": task, "custom_dataset": _in_memory(rows), **splits, "test_split": _LOCAL}
    if "gold" in rows[0].fields:  # HellaSwag as lm-eval would make it, so it has nothing to make
        change |= {"process_docs": None, "doc_to_target": "gold"}
    return change


def _in_memory(rows: Sequence[Row]) -> Callable[..., dict[str, "Dataset"]]:
    def dataset(**_: object) -> dict[str, "Dataset"]:
        from datasets import Dataset

        return {_LOCAL: Dataset.from_list([row.fields for row in rows])}

    return dataset


def _explained(sample: Mapping[str, Any]) -> str:
    (first, *_), target = sample["filtered_resps"], sample["target"]
    if isinstance(first, str):
        return f"read {shown(first)}, expected {target}"
    return f"expected {'ABCDEFGH'[int(target)]}"
