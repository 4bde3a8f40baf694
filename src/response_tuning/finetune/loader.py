"""The loader of steps: places that the sampler drew become documents that know their partners."""

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader, Dataset

from response_tuning.finetune.steps import (
    NOTHING,
    Document,
    Partners,
    Place,
    StepSampler,
    as_document,
    flattened,
)

if TYPE_CHECKING:
    from response_tuning.finetune.losses import DocumentLoss


class _PlacedDocuments(Dataset[Document]):
    """A dataset whose index is a ``Place``, so that loading workers need no sampler."""

    def __init__(self, dataset: Any) -> None:  # noqa: ANN401 - sized, with items by position
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, place: Place) -> Document:
        document = as_document(self._dataset[place.document])
        example = place.document if document.example < 0 else document.example
        document = document._replace(example=example, group=place.group, seed=place.seed)
        return document if place.factor == 1 else document.scaled(place.factor)


class StepLoader(DataLoader[Document]):
    """Yields one step (this process's share) at a time; Trainer tells it the epoch."""

    batch_sampler: StepSampler

    def __init__(self, dataset: Any, sampler: StepSampler, workers: int) -> None:  # noqa: ANN401
        super().__init__(
            _PlacedDocuments(dataset),
            batch_sampler=sampler,
            collate_fn=collate,
            num_workers=workers,
        )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's permutation."""
        self.batch_sampler.set_epoch(epoch)


def collate(documents: Sequence[Document]) -> dict[str, Any]:
    """Return one step: its documents, and what Trainer counts (ids and next-token labels)."""
    whole = flattened(documents or [NOTHING])
    return {
        "documents": list(documents),
        "input_ids": whole["input_ids"],
        "labels": whole["shift_labels"],
        "shift_labels": whole["shift_labels"],
    }


def lengths_of(dataset: Any) -> Sequence[int]:  # noqa: ANN401 - sized, with items by position
    """Return the tokens of each item; a dataset with ``lengths`` is not read for them."""
    lengths: Sequence[int] | None = getattr(dataset, "lengths", None)
    if lengths is not None:
        return lengths
    return [len(as_document(dataset[index]).input_ids) for index in range(len(dataset))]


def outline(dataset: Any) -> tuple[int, bool]:  # noqa: ANN401 - sized, items by position, or None
    """Return the tokens of the longest item, hidden ones included, and whether any are hidden."""
    if dataset is None or len(dataset) == 0:
        return 1, False
    extents = _extents_of(dataset)
    pairs = zip(extents, lengths_of(dataset), strict=True)
    return max(extents), any(extent > length for extent, length in pairs)


def _extents_of(dataset: Any) -> Sequence[int]:  # noqa: ANN401 - sized, with items by position
    """Return the tokens of each item, hidden ones included."""
    for known in ("extents", "lengths"):
        extents: Sequence[int] | None = getattr(dataset, known, None)
        if extents is not None:
            return extents
    return [as_document(dataset[index]).extent for index in range(len(dataset))]


def weights_of(dataset: Any) -> Sequence[float]:  # noqa: ANN401 - sized, with items by position
    """Return the total weight of each item; reads all of them once, and keeps 8 bytes of each."""
    return array("d", (as_document(dataset[n]).total_weight for n in range(len(dataset))))


def examples_of(dataset: Any) -> Sequence[int]:  # noqa: ANN401 - sized, with items by position
    """Return the position of each item's example in the data, as its document will have it."""
    known: Sequence[int] | None = getattr(dataset, "examples", None)
    if known is not None:
        return known
    found = (as_document(dataset[index]).example for index in range(len(dataset)))
    return array("q", (n if example < 0 else example for n, example in enumerate(found)))


def partners_of(dataset: Any, loss: "DocumentLoss | None") -> Partners | None:  # noqa: ANN401
    """Return the partners that ``loss`` draws each epoch, or those that ``dataset`` has."""
    if loss is None or loss.partners is None:
        return fixed_partners(dataset)
    return loss.partners(examples_of(dataset))


def fixed_partners(dataset: Any) -> Partners | None:  # noqa: ANN401 - sized, with items by position
    """Return the partners that a dataset with ``units`` has in every epoch; None if it has none."""
    units: Sequence[Sequence[int]] | None = getattr(dataset, "units", None)
    return None if units is None else lambda _: units
