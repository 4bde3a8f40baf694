"""Log-probabilities of the training documents under the model before its first step.

A preference loss compares the model with what it was. One pass without gradients gives a number for
each document, which a side file keeps: a second model never is in memory, and a resumed run, whose
model has changed, reads the file.
"""

import math
from array import array
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import TrainerCallback

from response_tuning.artifacts import Record, read_jsonl, write_jsonl
from response_tuning.errors import DataError, ModelError
from response_tuning.finetune.loader import examples_of
from response_tuning.finetune.steps import as_document

if TYPE_CHECKING:
    from response_tuning.finetune.losses import DocumentLoss, MicroBatchLoss
    from response_tuning.finetune.trainer import MicroBatch, ResponseTrainer

AT_ONCE = 512
"""Documents that are packed together."""


class LogProbability(Record):
    """One line of the side file."""

    example: int
    """Position of the example in ``examples.jsonl``."""
    log_probability: float
    """Sum over its tokens with loss, in nats."""


class Reference(TrainerCallback):
    """Gives the loss of a trainer the reference's log-probabilities before the first step."""

    def __init__(self, trainer: "ResponseTrainer", loss: "MicroBatchLoss") -> None:
        self._trainer = trainer
        self._loss = loss
        self.file: Path | None = None
        """The side file; without one, only a run that starts at its first step can go on."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Read the side file, or compute the log-probabilities and write it.

        Raises:
            DataError: the side file is not one of these documents.
            ModelError: the run resumes and has no side file.
        """
        trainer = self._trainer
        if self.file is not None and self.file.exists():
            self._loss.reference = _read(self.file, trainer)
            return
        if state.global_step > 0:
            raise ModelError(
                f"{self.file or 'this run'}: lacks the log-probabilities of the model before "
                "training, and a checkpoint has another model; start over with --no-resume"
            )
        found = self._loss.reference = log_probabilities(trainer)
        if self.file is not None and state.is_world_process_zero:
            known = [(place, value) for place, value in enumerate(found) if not math.isnan(value)]
            lines = (LogProbability(example=at, log_probability=value) for at, value in known)
            write_jsonl(self.file, lines)


def attached(
    trainer: "ResponseTrainer", micro_batch: "MicroBatchLoss", loss: "DocumentLoss | None"
) -> Reference | None:
    """Add a ``Reference`` to the callbacks of ``trainer`` if its ``loss`` needs one."""
    if loss is None or not loss.needs_reference:
        return None
    reference = Reference(trainer, micro_batch)
    trainer.add_callback(reference)
    return reference


def log_probabilities(trainer: "ResponseTrainer") -> "array[float]":
    """Return the log-probability of each training document by the position of its example.

    They are those of the model as it is now, in evaluation mode: dropout draws nothing.
    Documents that are not trained on are NaN.
    """
    positions = examples_of(trainer.train_dataset)
    found = array("d", [math.nan]) * (max(positions, default=-1) + 1)
    world, rank = trainer.args.world_size, trainer.args.process_index
    model: Any = trainer.model_wrapped
    was_training, step_tokens = model.training, trainer.step_tokens
    model.train(False)
    with torch.no_grad():
        # Every process takes part in every round: FSDP2 waits for a process that does not.
        for start in range(0, len(positions), AT_ONCE * world):
            places = range(start + rank, min(start + AT_ONCE * world, len(positions)), world)
            sums = _sums(trainer, places).tolist()
            for each_places, each_sums in _of_all_processes(trainer, [*places], sums):
                for place, value in zip(each_places, each_sums, strict=True):
                    found[positions[place]] = value
    model.train(was_training)
    trainer.step_tokens = step_tokens  # this pass is no part of a step
    return found


def _sums(trainer: "ResponseTrainer", places: range) -> Tensor:
    """Return (len(places),): the log-probability of each document there."""
    dataset: Any = trainer.train_dataset
    documents = [as_document(dataset[at])._replace(example=n) for n, at in enumerate(places)]

    def measure(batch: "MicroBatch", **_: object) -> Tensor:
        inputs = {k: v for k, v in batch.inputs.items() if k not in ("labels", "shift_labels")}
        with trainer.compute_loss_context_manager():
            logits = trainer.model_wrapped(**inputs).logits  # (S, V) in any shape
        targets = batch.inputs["labels"].view(-1)
        losses = F.cross_entropy(
            logits.reshape(-1, logits.shape[-1]).float(), targets, reduction="none"
        )
        counts = torch.tensor(
            [document.supervised for document in batch.documents], dtype=torch.long
        )
        owners = torch.tensor([document.example for document in batch.documents], dtype=torch.long)
        whose = owners.repeat_interleave(counts).to(losses.device)
        return losses.new_zeros(len(documents)).index_add(0, whose, -losses)

    return trainer.summed(documents, measure)


def _of_all_processes(
    trainer: "ResponseTrainer", places: list[int], sums: list[float]
) -> list[tuple[list[int], list[float]]]:
    if trainer.args.world_size == 1:
        return [(places, sums)]
    from accelerate.utils import gather_object

    gathered: list[tuple[list[int], list[float]]] = gather_object([(places, sums)])
    return gathered


def _read(file: Path, trainer: "ResponseTrainer") -> "array[float]":
    positions = examples_of(trainer.train_dataset)
    found = array("d", [math.nan]) * (max(positions, default=-1) + 1)
    for line in read_jsonl(file, LogProbability):
        if not 0 <= line.example < len(found):
            raise DataError(f"{file}: is of other examples; delete it, and start over")
        found[line.example] = line.log_probability
    if any(math.isnan(found[position]) for position in positions):
        raise DataError(f"{file}: lacks some of the examples; delete it, and start over")
    return found
