"""A step is a set of examples; how it goes through the model is a matter of memory only.

The step's examples are the same whatever the token budget of a micro-batch, its layout or the
number of processes. Shapes: T tokens of a micro-batch, B rows of a padded one.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, Dataset

from response_tuning.finetune.objectives import IGNORED

Batch = dict[str, Tensor | int]


class Document(NamedTuple):
    """One row's tokens: ids and unshifted labels, both (T,)."""

    input_ids: list[int]
    labels: list[int]


class Documents(Dataset[Document]):
    """Encoded rows, kept as flat arrays of 4-byte integers."""

    def __init__(self, rows: Iterable[tuple[Sequence[int], Sequence[int]]]) -> None:
        self._ids, self._labels = array("i"), array("i")
        self._starts = array("q", [0])
        for ids, labels in rows:
            self._ids.extend(ids)
            self._labels.extend(labels)
            self._starts.append(len(self._ids))

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: int) -> Document:
        start, end = self._starts[index], self._starts[index + 1]
        return Document(self._ids[start:end].tolist(), self._labels[start:end].tolist())

    @property
    def lengths(self) -> list[int]:
        """Tokens of each document."""
        starts = self._starts
        return [starts[i + 1] - starts[i] for i in range(len(self))]


class StepSampler(BatchSampler):
    """Yields this process's share of each step, as indices into the documents.

    An epoch is a permutation drawn from (seed, epoch) and cut into steps; the last may be shorter.
    Within a step the longest document goes to the process with the fewest tokens so far.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        examples_per_step: int,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._lengths = lengths
        self._size = examples_per_step
        self._seed = seed
        self._rank, self._world = rank, world
        self._epoch = 0
        # What Trainer reads to count samples.
        self.batch_size = examples_per_step
        self.drop_last = False

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation; called by Trainer, also after a resume."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps():
            yield self._share(step)

    def steps(self) -> Iterator[list[int]]:
        """Yield the examples of each step of this epoch, over all processes."""
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        # Kept as a tensor, 8 bytes an example; a list of integers takes 40.
        order = torch.randperm(len(self._lengths), generator=generator)
        for start in range(0, len(order), self._size):
            yield order[start : start + self._size].tolist()

    def _share(self, step: list[int]) -> list[int]:
        if self._world == 1:
            return step
        shares: list[list[int]] = [[] for _ in range(self._world)]
        tokens = [0] * self._world
        for index in sorted(step, key=lambda i: (-self._lengths[i], i)):
            lightest = tokens.index(min(tokens))
            shares[lightest].append(index)
            tokens[lightest] += self._lengths[index]
        return shares[self._rank]


def pack(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group documents into micro-batches of at most ``budget`` tokens, first fit decreasing.

    A document longer than the budget has a micro-batch to itself.
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = next((b for b, free in enumerate(room) if lengths[index] <= free), None)
        if fitting is None:
            bins.append([index])
            room.append(budget - lengths[index])
        else:
            bins[fitting].append(index)
            room[fitting] -= lengths[index]
    return bins


def pack_rows(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group documents of like length so that rows x longest is at most ``budget`` tokens."""
    bins: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if bins and (len(bins[-1]) + 1) * lengths[bins[-1][0]] <= budget:
            bins[-1].append(index)
        else:
            bins.append([index])
    return bins


def flattened(documents: Sequence[Document]) -> Batch:
    """Lay documents end to end: tensors of (1, T), and the boundaries of the documents.

    Positions restart at 0 in each document. ``shift_labels`` holds at each position the label of
    the next token of the same document.
    """
    ids = [token for document in documents for token in document.input_ids]
    positions = [p for document in documents for p in range(len(document.input_ids))]
    labels = [label for document in documents for label in shifted(document.labels)]
    lengths = [len(document.input_ids) for document in documents]
    return {
        "input_ids": _row(ids),
        "position_ids": _row(positions),
        "shift_labels": _row(labels),
        "cu_seq_lens_q": torch.tensor([0, *lengths]).cumsum(0).to(torch.int32),
        "max_length_q": max(lengths),
    }


def _row(values: list[int]) -> Tensor:
    """Return (1, T); a list is read eight times faster through an array."""
    return torch.frombuffer(array("q", values), dtype=torch.int64)[None]


def padded(documents: Sequence[Document]) -> Batch:
    """Pad documents on the right to the longest: tensors of (B, T) and an attention mask."""
    longest = max(len(document.input_ids) for document in documents)

    def rows(values: Iterable[list[int]], fill: int) -> Tensor:
        return torch.tensor([value + [fill] * (longest - len(value)) for value in values])

    return {
        # Any id serves as padding: the mask hides it and no label looks at it.
        "input_ids": rows((document.input_ids for document in documents), 0),
        "attention_mask": rows(([1] * len(document.input_ids) for document in documents), 0),
        "shift_labels": rows((shifted(document.labels) for document in documents), IGNORED),
    }


def size_of(batch: Batch) -> tuple[int, int]:
    """Return how many tokens, padding included, and documents a micro-batch holds."""
    ids, bounds = batch["input_ids"], batch.get("cu_seq_lens_q")
    assert isinstance(ids, Tensor)
    return ids.numel(), len(bounds) - 1 if isinstance(bounds, Tensor) else len(ids)


def shifted(labels: list[int]) -> list[int]:
    """Move each label to the position that predicts it; the last position predicts nothing."""
    return [*labels[1:], IGNORED]


class Layout(NamedTuple):
    """How micro-batches are laid out: which documents go together, and as what tensors."""

    name: str
    pack: Callable[[Sequence[int], int], list[list[int]]]
    build: Callable[[Sequence[Document]], Batch]

    def micro_batches(self, documents: Sequence[Document], budget: int) -> Iterator[Batch]:
        """Yield the micro-batches of ``documents``, each of at most ``budget`` tokens."""
        for group in self.pack([len(document.input_ids) for document in documents], budget):
            yield self.build([documents[index] for index in group])


FLATTENED = Layout("flattened", pack, flattened)
PADDED = Layout("padded", pack_rows, padded)

NOTHING = Document([0, 0], [IGNORED, IGNORED])
"""Stands in where a process has no example, or fewer micro-batches than another."""
