"""How much a tuned model remembers of single responses: loss over epochs, and words for words."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from transformers import TrainerCallback

from response_tuning.finetune.objectives import IGNORED
from response_tuning.finetune.steps import Document

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.finetune.trainer import ResponseTrainer

logger = logging.getLogger(__name__)

LOOKED_AT = 32
"""Most responses of a set that are looked at, evenly spread."""
SHORTEST = 16
"""Fewest tokens of a response that is looked at: everybody ends "Yes, we do" alike."""
CONTINUED = 50
"""Most tokens that have to be equal (Carlini et al. 2023, arXiv 2202.07646)."""
RISE = 1.01
"""Times the lowest held-out loss that counts as a rise."""


class Epoch(NamedTuple):
    """The losses up to one evaluation, a token each."""

    epoch: float
    train: float
    """Mean over the steps since the evaluation before."""
    held_out: float


def epochs_of(history: Iterable[Mapping[str, Any]]) -> list[Epoch]:
    """Return the losses of each epoch from a trainer's log."""
    epochs: dict[int, Epoch] = {}
    losses: list[float] = []
    for entry in history:
        if "loss" in entry:
            losses.append(entry["loss"])
        # A resumed run may measure the same step again.
        if "eval_loss" in entry and losses:
            train = sum(losses) / len(losses)
            epochs[entry["step"]] = Epoch(entry["epoch"], train, entry["eval_loss"])
            losses = []
    return [*epochs.values()]


def warning(epochs: Sequence[Epoch]) -> str:
    """Return a warning in the first epoch in which the two losses part; else ''."""
    parted = [place for place in range(1, len(epochs)) if _parts(epochs[: place + 1])]
    if parted != [len(epochs) - 1]:
        return ""
    last, best = epochs[-1], min(epochs[:-1], key=lambda one: one.held_out)
    return (
        f"held-out loss rose from {best.held_out:.4f} in epoch {best.epoch:g} to "
        f"{last.held_out:.4f} in epoch {last.epoch:g}, while the training loss fell from "
        f"{best.train:.4f} to {last.train:.4f}: the model learns single responses by heart; "
        f"--epochs {best.epoch:g} would have stopped before"
    )


def _parts(epochs: Sequence[Epoch]) -> bool:
    last, best = epochs[-1], min(epochs[:-1], key=lambda one: one.held_out)
    return last.held_out > RISE * best.held_out and last.train < best.train


class HeldOutLoss(TrainerCallback):
    """Prints both losses after each epoch, and warns when they part."""

    def __init__(self, console: "Console") -> None:
        self._console = console

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Print the losses of the epoch that has ended."""
        epochs = epochs_of(state.log_history)
        if not (state.is_world_process_zero and epochs):
            return
        last = epochs[-1]
        self._console.print(
            f"epoch {last.epoch:g}: training loss {last.train:.4f}, held-out {last.held_out:.4f}",
            highlight=False,
            soft_wrap=True,
        )
        if sentence := warning(epochs):
            logger.warning("%s", sentence)


class Recalled(NamedTuple):
    """How many responses a model goes on with word for word."""

    recalled: int
    of: int


def recalled(trainer: "ResponseTrainer", documents: Any) -> Recalled:  # noqa: ANN401 - by position
    """Count the responses whose next tokens the model writes, given the first half.

    Greedy decoding writes exactly these tokens if each is the most probable one after those before
    it, so one forward pass tells. Of a document, the tokens before and ``CONTINUED`` after the
    middle of the response are used.
    """
    found = [tail for tail in map(_tail, _spread(documents)) if tail is not None]
    model: Any = trainer.model
    was_training = model.training
    model.train(False)
    with torch.no_grad(), trainer.compute_loss_context_manager():
        count = sum(_goes_on(model, document, start, trainer) for document, start in found)
    model.train(was_training)
    return Recalled(count, len(found))


def measured(
    trainer: "ResponseTrainer",
    train: Any,  # noqa: ANN401 - sized, with items by position
    held_out: Any,  # noqa: ANN401
) -> tuple[dict[str, Any], list[str]]:
    """Return the loss on what was held out and what is recalled, for the manifest and as lines."""
    loss = _held_out_loss(trainer)
    of_train, of_held_out = recalled(trainer, train), recalled(trainer, held_out)
    found = {"train": [*of_train], "held_out": [*of_held_out]}
    line = f"loss on {len(held_out):,} held-out examples: {loss:.4f} a token"
    return {"held_out_loss": loss, "recalled": found}, [line, sentence(of_train, of_held_out)]


def _held_out_loss(trainer: "ResponseTrainer") -> float:
    """Return the loss after the last step; a run killed after that step has not computed it."""
    for entry in reversed(trainer.state.log_history):
        if "eval_loss" in entry and entry["step"] == trainer.state.global_step:
            return float(entry["eval_loss"])
    return trainer.evaluate()["eval_loss"]


def sentence(train: Recalled, held_out: Recalled) -> str:
    """Return what the model remembers, for people; '' if no response was long enough."""
    if not train.of:
        return ""
    control = f", and {held_out.recalled} of {held_out.of} held-out ones" if held_out.of else ""
    return (
        f"memorisation: given the first half, the model goes on word for word in "
        f"{train.recalled} of {train.of} training responses{control}"
    )


def _spread(documents: Any) -> list[Document]:  # noqa: ANN401 - sized, with items by position
    count = len(documents)
    places = (
        range(count) if count <= LOOKED_AT else [n * count // LOOKED_AT for n in range(LOOKED_AT)]
    )
    return [documents[place] for place in places]


def _tail(document: Document) -> tuple[Document, int] | None:
    """Cut a document behind the tokens to compare, and return where those begin."""
    supervised = [place for place, label in enumerate(document.labels) if label != IGNORED]
    if len(supervised) < SHORTEST:
        return None
    start = supervised[len(supervised) // 2]
    end = min(start + CONTINUED, supervised[-1] + 1)
    positions = document.positions and document.positions[:end]
    return document._replace(input_ids=document.input_ids[:end], positions=positions), start


def _goes_on(model: Any, document: Document, start: int, trainer: "ResponseTrainer") -> bool:  # noqa: ANN401
    ids = torch.tensor([document.input_ids], device=trainer.args.device)
    where = {}
    if document.positions:
        where["position_ids"] = torch.tensor([document.positions], device=trainer.args.device)
    kept = ids.shape[1] - start + 1  # the token before the first compared one predicts it
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=kept, **where).logits[0, :-1]
    return bool((logits.argmax(-1) == ids[0, start:]).all())
