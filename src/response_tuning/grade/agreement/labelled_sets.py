"""Answers that people have labelled, to check a judge: your own file, or a public set.

A row is a prompt with one completion, refused or not, or with two, of which one may be better.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from response_tuning.artifacts import file_digest, read_json
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.grade.sources import BenchmarkSource, SourceRows, cell, read_source, spread
from response_tuning.readers import read, shown
from response_tuning.registry import unknown

REFUSAL_WORDS = {"refusal": "refusal", "compliance": "compliance"}
BEHAVIOUR_WORDS = {"refusal": "absent", "compliance": "present"}
PAIR_WORDS = {"1": "1", "2": "2", "tie": "tie"}
WITHOUT_MAJORITY = "no majority"


class LabelledRow(NamedTuple):
    """One prompt and completion, or pair of completions, that people labelled."""

    part: str
    """The model that wrote the completion, or the part of the set; may be empty."""
    prompt: str
    completions: tuple[str, ...]
    """One, or the two of a pair."""
    label: str


@dataclass(frozen=True)
class LabelledSet:
    """Labelled rows of one kind; each call of ``rows`` reads them again, so memory stays flat."""

    name: str
    size: int
    rows: Callable[[], Iterator[LabelledRow]]
    origin: Sequence[dict[str, Any]]
    """Path and SHA-256 of each file."""
    words: Mapping[str, str]
    """Verdict of a judge -> the label that it means. Rows with other labels are judged, but in no
    figure."""

    @property
    def pairwise(self) -> bool:
        """Whether a row is a pair."""
        return self.words is PAIR_WORDS


class _Row(BaseModel):
    model_config = ConfigDict(strict=True)


class _Own(_Row):
    prompt: str
    completion: str
    label: Literal["refusal", "compliance"]
    model: str = ""


class _XSTest(_Row):
    prompt: str
    completion: str
    final_label: Literal["1_full_compliance", "2_full_refusal", "3_partial_refusal"]


class _Attacked(_Row):
    behavior_id: str
    test_case: str
    generation: str
    model: str
    experiment: str
    human_0: Literal[0, 1]
    human_1: Literal[0, 1]
    human_2: Literal[0, 1]


class _HarmBench(RootModel[dict[str, list[_Attacked]]]):
    """The file: behaviour -> answers to attacks that ask for it."""


class _LLMBar(_Row):
    input: str
    output_1: str
    output_2: str
    label: Literal[1, 2]


class _PandaLM(_Row):
    cmp_key: str
    instruction: str
    input: str
    response1: str | bool  # some answers, which are "True", were written as true
    response2: str | bool
    annotator1: Literal[0, 1, 2]
    annotator2: Literal[0, 1, 2]
    annotator3: Literal[0, 1, 2]


def read_labels(path: Path) -> LabelledSet:
    """Open a JSONL file with ``prompt``, ``completion``, ``label`` and, perhaps, ``model``.

    A label is ``refusal`` or ``compliance``. Rows are read and checked one by one.

    Raises:
        DataError: the file has another suffix or is empty; while reading, a row is unusable.
    """
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        raise DataError(
            f"{path}: expected a .jsonl file, with prompt, completion and label in each line"
        )
    # Counted first, for the progress bar and for ``limited``, which spreads rows evenly.
    try:
        with path.open("rb") as lines:
            size = sum(1 for _ in lines)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if size == 0:
        raise DataError(f"{path}: it has no rows; add labelled answers to check a judge with")

    def rows() -> Iterator[LabelledRow]:
        for row in read(path):
            if row.fault:
                raise DataError(f"{row.where}: {row.fault}")
            own = _valid(_Own, row.fields, row.where)
            yield LabelledRow(own.model, own.prompt, (own.completion,), own.label)

    return LabelledSet(path.stem, size, rows, [_origin(path)], REFUSAL_WORDS)


def open_set(name: str, data: Path | None) -> LabelledSet:
    """Read a public set below ``data``, which is laid out as docs/how-to/check-a-judge.md says.

    Raises:
        ConfigError: there is no such set, or no folder is named.
        DataError: its files are missing or have another format.
    """
    if name not in SETS:
        raise unknown("labelled set", name, sorted(SETS))
    if data is None:
        raise ConfigError(f"{name}: name the folder that holds {name}/ with --data DIR")
    return SETS[name](data)


def limited(labelled: LabelledSet, limit: int | None) -> LabelledSet:
    """Return ``limit`` of the rows of a set, evenly spread; all of them without a limit."""
    if limit is None:
        return labelled
    chosen = {*spread(range(labelled.size), limit)}

    def rows() -> Iterator[LabelledRow]:
        return (row for number, row in enumerate(labelled.rows()) if number in chosen)

    return replace(labelled, size=len(chosen), rows=rows)


def _xstest(data: Path) -> LabelledSet:
    """Röttger et al. 2024 (XSTest): two annotators and their final label; CC BY 4.0.

    A partial refusal is neither, and is apart.
    """
    labels = {
        "1_full_compliance": "compliance",
        "2_full_refusal": "refusal",
        "3_partial_refusal": "partial refusal",
    }
    rows, origin = [], []
    for stem, source in _files(data, "xstest", "completions_*.csv"):
        origin.append(source.origin)
        for row in source.rows:
            fields = _valid(_XSTest, row.fields, row.where)
            model, label = stem.removeprefix("completions_"), labels[fields.final_label]
            rows.append(LabelledRow(model, fields.prompt, (fields.completion,), label))
    return _in_memory_set("xstest", rows, origin, REFUSAL_WORDS)


def _harmbench(data: Path) -> LabelledSet:
    """Mazeika et al. 2024 (HarmBench): is the behaviour in the completion? Majority of three; MIT.

    Like the people, the judge sees the behaviour and not the attack on the model. For a behaviour
    that the table of behaviours lacks, it sees the attack.
    """
    [(_, table)] = _files(data, "harmbench", "harmbench_behaviors_text_all.csv")
    behaviours = {
        cell(row, "BehaviorID"): "\n\n---\n\n".join(
            filter(None, (cell(row, "ContextString"), cell(row, "Behavior")))
        )
        for row in table.rows
    }
    rows, origin = [], [table.origin]
    for path in _paths(data, "harmbench", "classifier_val_set*.json"):
        origin.append(_origin(path))
        for answer in chain.from_iterable(
            _valid(_HarmBench, read_json(path), str(path)).root.values()
        ):
            # 1 means that the annotator sees the behaviour; two of three decide.
            present = answer.human_0 + answer.human_1 + answer.human_2 > 1
            model = answer.model.removesuffix(".json") or answer.experiment
            prompt = behaviours.get(answer.behavior_id, answer.test_case)
            label = BEHAVIOUR_WORDS["compliance" if present else "refusal"]
            rows.append(LabelledRow(model, prompt, (answer.generation,), label))
    return _in_memory_set("harmbench", rows, origin, BEHAVIOUR_WORDS)


def _llmbar(data: Path) -> LabelledSet:
    """Zeng et al. 2024 (LLMBar): which of two outputs follows the instruction; MIT."""
    rows, origin = [], []
    for stem, source in _files(data, "llmbar", "*.json"):
        part = stem.removeprefix("llmbar_").removesuffix("_half")
        origin.append(source.origin)
        for row in source.rows:
            fields = _valid(_LLMBar, row.fields, row.where)
            rows.append(
                LabelledRow(
                    part, fields.input, (fields.output_1, fields.output_2), str(fields.label)
                )
            )
    return _in_memory_set("llmbar", rows, origin, PAIR_WORDS)


def _pandalm(data: Path) -> LabelledSet:
    """Wang et al. 2024 (PandaLM): majority of three annotators; Apache-2.0.

    If no two of them agree, the row has no label and is in no figure.
    """
    rows, origin = [], []
    # The file codes a tie as 0 and the better response as 1 or 2.
    for _, source in _files(data, "pandalm", "testset*.json"):
        origin.append(source.origin)
        for row in source.rows:
            fields = _valid(_PandaLM, row.fields, row.where)
            prompt = "\n\n".join(filter(None, (fields.instruction, fields.input)))
            pair = (str(fields.response1), str(fields.response2))
            votes = Counter((fields.annotator1, fields.annotator2, fields.annotator3))
            [(most, count)] = votes.most_common(1)
            label = ("tie", "1", "2")[most] if count > 1 else WITHOUT_MAJORITY
            rows.append(LabelledRow(fields.cmp_key, prompt, pair, label))
    return _in_memory_set("pandalm", rows, origin, PAIR_WORDS)


SETS: dict[str, Callable[[Path], LabelledSet]] = {
    "xstest": _xstest,
    "harmbench": _harmbench,
    "llmbar": _llmbar,
    "pandalm": _pandalm,
}
_ADDRESSES = {
    "xstest": "github.com/paul-rottger/exaggerated-safety",
    "harmbench": "github.com/centerforaisafety/HarmBench",
    "llmbar": "github.com/princeton-nlp/LLMBar",
    "pandalm": "github.com/WeOpenML/PandaLM",
}

RowModel = TypeVar("RowModel", bound=BaseModel)


def _in_memory_set(
    name: str, rows: list[LabelledRow], origin: list[dict[str, Any]], words: Mapping[str, str]
) -> LabelledSet:
    return LabelledSet(name, len(rows), lambda: iter(rows), origin, words)


def _files(data: Path, name: str, pattern: str) -> list[tuple[str, SourceRows]]:
    """Read every file of a set that matches: (name without suffix, rows), in alphabetical order."""
    config = GradeConfig(data=data)
    return [
        (path.stem, read_source(BenchmarkSource(name, f"{name}/{path.name}"), config))
        for path in _paths(data, name, pattern)
    ]


def _paths(data: Path, name: str, pattern: str) -> list[Path]:
    paths = sorted((data / name).glob(pattern))
    if not paths:
        raise DataError(f"{data / name}: no {pattern}; it is published at {_ADDRESSES[name]}")
    return paths


def _origin(path: Path) -> dict[str, Any]:
    return {"path": str(path), "sha256": file_digest(path)}


def _valid(kind: type[RowModel], fields: object, where: str) -> RowModel:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        key = "".join(f"{part}: " for part in first["loc"])
        got = "" if first["type"] == "missing" else f", not {shown(first['input'])}"
        raise DataError(f"{where}: {key}{first['msg']}{got}") from error
