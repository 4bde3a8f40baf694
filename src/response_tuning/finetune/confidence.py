"""How confident a run is of each row it is tuned on: minus the mean perplexity over its epochs.

SFTMix (arXiv 2410.05248) splits rows by it. A run with ``record_confidence`` measures each row at
the end of every epoch, or at five evenly spaced steps of a single one, under its own objective:
with prompts p(response | prompt), without them p(response | opening).
"""

import math
from array import array
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from response_tuning.artifacts import Record, read_jsonl, write_jsonl
from response_tuning.errors import DataError
from response_tuning.finetune.example_file import Examples
from response_tuning.finetune.loader import examples_of
from response_tuning.finetune.reference import log_probabilities
from response_tuning.finetune.steps import as_document

if TYPE_CHECKING:
    from response_tuning.finetune.trainer import ResponseTrainer

FILE = "confidence.jsonl"
"""The file in the folder of the tuned model."""
IN_ONE_EPOCH = 5
"""Measurements of a run of at most one epoch."""


class Confidence(Record):
    """One row of the file."""

    row: int
    turn: int
    confidence: float
    """Minus the mean over measurements of exp(mean cross-entropy of the tokens with loss)."""
    tokens: int
    """Tokens with loss."""


class Perplexity(Record):
    """One row of a measurement."""

    example: int
    perplexity: float


class RecordConfidence(TrainerCallback):
    """Measures each row as training goes on; a killed run keeps the measurements that it made."""

    def __init__(self, trainer: "ResponseTrainer", folder: Path) -> None:
        self._trainer = trainer
        self._folder = folder

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Measure, if the step is one after which the rows are measured."""
        steps = measured_after(state.max_steps, math.ceil(args.num_train_epochs))
        if state.global_step in steps:
            found = perplexities(self._trainer)
            if state.is_world_process_zero:
                lines = (Perplexity(example=n, perplexity=value) for n, value in found.items())
                write_jsonl(self._file(state.global_step), lines)

    def write(self, out: Path, examples: Examples) -> None:
        """Average the measurements into ``confidence.jsonl`` in ``out``."""
        trainer = self._trainer
        state, args = trainer.state, trainer.args
        steps = measured_after(state.max_steps, math.ceil(args.num_train_epochs))
        values: dict[int, list[float]] = {}
        for step in steps:
            for line in read_jsonl(self._file(step), Perplexity):
                values.setdefault(line.example, []).append(line.perplexity)
        dataset: Any = trainer.train_dataset
        places = {example: place for place, example in enumerate(examples_of(dataset))}
        write_jsonl(
            out / FILE,
            (
                Confidence(
                    row=examples[example].row,
                    turn=examples[example].turn,
                    confidence=-fmean(found),
                    tokens=as_document(dataset[places[example]]).supervised,
                )
                for example, found in sorted(values.items())
            ),
        )

    def _file(self, step: int) -> Path:
        return self._folder / f"perplexity-{step}.jsonl"


def measured_after(steps: int, epochs: int) -> list[int]:
    """Return the steps after which rows are measured: of each epoch the last, or five of one."""
    parts = epochs if epochs > 1 else IN_ONE_EPOCH
    return sorted({max(1, round(steps * part / parts)) for part in range(1, parts + 1)})


def perplexities(trainer: "ResponseTrainer") -> dict[int, float]:
    """Return the perplexity of each training document by the position of its example."""
    found, dataset = log_probabilities(trainer), trainer.train_dataset
    documents: Any = dataset
    return {
        example: math.exp(-found[example] / (as_document(documents[place]).supervised or 1))
        for place, example in enumerate(examples_of(dataset))
    }


def read_confidence(path: Path, examples: Examples) -> "tuple[array[float], array[int]]":
    """Return confidence and tokens of each example by its position; NaN and 0 where it has none.

    Raises:
        DataError: the file cannot be read, or is of other examples.
    """
    known = {(line.row, line.turn): line for line in read_jsonl(path, Confidence)}
    scores = array("d", [math.nan]) * len(examples)
    lengths = array("i", [0]) * len(examples)
    for place, example in enumerate(examples):
        line = known.pop((example.row, example.turn), None)
        if line is not None:
            scores[place], lengths[place] = line.confidence, line.tokens
    if known:
        row, turn = min(known)
        raise DataError(
            f"{path}: has row {row}, turn {turn}, which is no example of this run; tune the "
            "reference on the same data, with the same seed"
        )
    return scores, lengths
