"""A step is a set of documents; how it goes through the model is a matter of memory only.

The documents of a step, and the random numbers that its loss draws, are the same whatever the token
budget of a micro-batch, its layout or the number of processes: they are decided before documents
are shared among processes and packed. Documents that belong together, such as the two responses of
a preference pair, are partners: they are in one step, on one process and in one micro-batch.

Shapes: T tokens of a micro-batch, B rows of a padded one, S positions whose next token has loss.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, Dataset

from response_tuning.finetune.objectives import IGNORED

Batch = dict[str, Tensor | int]
ALONE = -1
"""Group of a document without partners."""

T = TypeVar("T")
Partners = Callable[[Random], Sequence[Sequence[int]]]
"""Draws an epoch's partners: every document is in exactly one of the sequences."""


class Document(NamedTuple):
    """One row's tokens: ids and unshifted labels, both (T,)."""

    input_ids: list[int]
    labels: list[int]
    weights: list[float] | None = None
    """Weights of the tokens in the loss, (T,); None if each labelled token weighs 1."""
    example: int = -1
    """Position of its example in the data, by which a loss looks up what it knows about it."""
    group: int = ALONE
    """A number that it shares with its partners in the step."""
    seed: int = 0
    """Seeds whatever a loss draws for it in this step; partners share it."""
    positions: list[int] | None = None
    """Positions of the tokens, (T,), ascending; None if they count from 0.

    A gap is where text is hidden. No token attends to hidden text, so nothing that a model computes
    of it reaches a loss: it is left out, and what remains keeps its positions.
    """

    @property
    def extent(self) -> int:
        """Tokens of the row, hidden ones included."""
        return self.positions[-1] + 1 if self.positions else len(self.input_ids)

    @property
    def extra_weight(self) -> float:
        """By how much its weights add up to more than its number of supervised tokens."""
        if self.weights is None:
            return 0.0
        pairs = zip(self.labels[1:], self.weights[1:], strict=True)
        return sum(weight - 1 for label, weight in pairs if label != IGNORED)

    @property
    def supervised(self) -> int:
        """The number of its supervised tokens; nothing predicts the first one."""
        return len(self.labels) - 1 - self.labels[1:].count(IGNORED)

    @property
    def total_weight(self) -> float:
        """The sum of the weights of its supervised tokens."""
        return self.supervised + self.extra_weight

    def scaled(self, factor: float) -> "Document":
        """Return it with all weights times ``factor``."""
        weights = self.weights or [1.0] * len(self.labels)
        return self._replace(weights=[weight * factor for weight in weights])


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
        ids, labels = self._ids[start:end].tolist(), self._labels[start:end].tolist()
        return Document(ids, labels, example=index)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each document."""
        starts = self._starts
        return [starts[i + 1] - starts[i] for i in range(len(self))]


class Place(NamedTuple):
    """A document in a step: which one, its partners, and the seed of what its loss draws."""

    document: int
    """Its position in the dataset."""
    group: int = ALONE
    seed: int = 0
    factor: float = 1.0
    """Factor of its weights: 1 / the total weight of the documents that share its mean."""


class Means(NamedTuple):
    """A step's loss as a mean of means, each over the tokens of consecutive documents.

    Gradient accumulation without a token count does so: each of its micro-batches has a weight of
    1, however many tokens it has. Here these are fixed documents of the step, and a matter of
    weights; how documents are packed into memory stays free.
    """

    documents: int
    """Documents of a mean; the last one of a step may have fewer."""
    weights: Sequence[float]
    """Total weight of each document of the dataset."""

    def applied(self, step: Sequence[Place]) -> list[Place]:
        """Return the documents of ``step`` with their factors."""
        result: list[Place] = []
        for start in range(0, len(step), self.documents):
            shared = step[start : start + self.documents]
            # A mean over documents without supervised tokens is left out of the mean of means.
            total = sum(self.weights[place.document] for place in shared) or 1.0
            result.extend(place._replace(factor=1 / total) for place in shared)
        return result


def gathered(items: Iterable[T], group: Callable[[T], int]) -> list[list[T]]:
    """Return units: partners together, in the order of the first of them; others by themselves."""
    units: dict[int, list[T]] = {}
    for number, item in enumerate(items):
        key = group(item)
        # A document without partners needs a key that no other one has; groups are not negative.
        units.setdefault(key if key != ALONE else ALONE - 1 - number, []).append(item)
    return list(units.values())


class StepSampler(BatchSampler):
    """Yields this process's share of each step, as places of documents.

    An epoch is a permutation drawn from (seed, epoch) and cut into steps; the last may be shorter.
    Partners count as one in the permutation, and a step has room for as many groups as it has for
    the largest. Within a step, the longest unit goes to the process with the fewest tokens so far.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        examples_per_step: int,
        *,
        seed: int,
        partners: Partners | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self._lengths = lengths
        self._seed = seed
        self._partners = partners
        self.means: Means | None = None
        """What the loss of a step averages; by default, its tokens."""
        self._rank, self._world = rank, world
        self._epoch = 0
        self._units = self._drawn_units()
        largest = max(map(len, self._units), default=1) if self._units else 1
        self._size = max(1, examples_per_step // largest)
        # What Trainer reads to count samples.
        self.batch_size = examples_per_step
        self.drop_last = False

    def __len__(self) -> int:
        return -(-len(self._lengths if self._units is None else self._units) // self._size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation; called by Trainer, also after a resume."""
        self._epoch = epoch
        self._units = self._drawn_units()

    def __iter__(self) -> Iterator[list[Place]]:  # type: ignore[override] # not positions alone
        for step in self.steps():
            yield self._share(step)

    def steps(self) -> Iterator[list[Place]]:
        """Yield the documents of each step of this epoch, over all processes."""
        generator = torch.Generator().manual_seed(self._epoch_seed)
        # Kept as a tensor, 8 bytes an example; a list of integers takes 40.
        count = len(self._lengths if self._units is None else self._units)
        order = torch.randperm(count, generator=generator)
        for start in range(0, len(order), self._size):
            chosen = order[start : start + self._size].tolist()
            step = [place for unit in chosen for place in self._places(unit)]
            yield self.means.applied(step) if self.means else step

    @property
    def _epoch_seed(self) -> int:
        return self._seed * 1_000_003 + self._epoch

    def _drawn_units(self) -> Sequence[Sequence[int]] | None:
        """Return this epoch's units; None, which takes no memory, if no document has partners."""
        return self._partners(Random(self._epoch_seed)) if self._partners else None

    def _places(self, unit: int) -> list[Place]:
        # Keyed by the document, not by its place in the step, which depends on examples_per_step.
        seed = self._epoch_seed << 32 | unit
        if self._units is None:
            return [Place(unit, ALONE, seed)]
        indices = self._units[unit]
        return [Place(index, unit if len(indices) > 1 else ALONE, seed) for index in indices]

    def _share(self, step: list[Place]) -> list[Place]:
        """Return this process's part of ``step``: every process computes the same division."""
        if self._world == 1:
            return step
        units = gathered(step, lambda place: place.group)
        totals = [sum(self._lengths[place.document] for place in unit) for unit in units]
        shares: list[list[Place]] = [[] for _ in range(self._world)]
        tokens = [0] * self._world
        for number in sorted(range(len(units)), key=lambda n: (-totals[n], units[n])):
            lightest = tokens.index(min(tokens))
            shares[lightest].extend(units[number])
            tokens[lightest] += totals[number]
        return shares[self._rank]


def pack(units: Sequence[Sequence[int]], budget: int) -> list[list[int]]:
    """Group units into micro-batches of at most ``budget`` tokens, first fit decreasing.

    ``units`` are the lengths of the documents of each. A unit longer than the budget has a
    micro-batch to itself.
    """
    # Long units first: they leave the gaps that short ones fill. The order within the step changes
    # no result, because the loss is a sum over all micro-batches.
    totals = [sum(unit) for unit in units]
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(units)), key=lambda i: (-totals[i], i)):
        fitting = next((b for b, free in enumerate(room) if totals[index] <= free), None)
        if fitting is None:
            bins.append([index])
            room.append(budget - totals[index])
        else:
            bins[fitting].append(index)
            room[fitting] -= totals[index]
    return bins


def pack_rows(units: Sequence[Sequence[int]], budget: int) -> list[list[int]]:
    """Group units of like length so that rows x longest is at most ``budget`` tokens."""
    longest = [max(unit) for unit in units]
    bins: list[list[int]] = []
    rows = 0
    for index in sorted(range(len(units)), key=lambda i: (-longest[i], i)):
        # Sorted, so the first unit of a micro-batch has its longest document.
        if bins and (rows + len(units[index])) * longest[bins[-1][0]] <= budget:
            bins[-1].append(index)
            rows += len(units[index])
        else:
            bins.append([index])
            rows = len(units[index])
    return bins


def flattened(documents: Sequence[Document]) -> Batch:
    """Lay documents end to end: tensors of (1, T), and the boundaries of the documents.

    Positions restart in each document. ``shift_labels`` holds at each position the label of the
    next token of the same document. ``document_positions`` tells attention of gaps.
    """
    ids = [token for document in documents for token in document.input_ids]
    positions = [position for document in documents for position in _positions(document)]
    # Shifted before documents are joined, or the last token of one would predict the next one.
    labels = [label for document in documents for label in shifted(document.labels)]
    lengths = [len(document.input_ids) for document in documents]
    batch: Batch = {
        "input_ids": _row(ids),
        "position_ids": _row(positions),
        "shift_labels": _row(labels),
        "cu_seq_lens_q": torch.tensor([0, *lengths]).cumsum(0).to(torch.int32),
        "max_length_q": max(lengths),
    }
    if _have_gaps(documents):
        batch["document_positions"] = _row(positions)
    return batch


def _positions(document: Document) -> Sequence[int]:
    return document.positions or range(len(document.input_ids))


def _have_gaps(documents: Sequence[Document]) -> bool:
    return any(document.positions is not None for document in documents)


def _row(values: list[int]) -> Tensor:
    """Return (1, T); a list is read eight times faster through an array."""
    return torch.frombuffer(array("q", values), dtype=torch.int64)[None]


def padded(documents: Sequence[Document]) -> Batch:
    """Pad documents on the right to the longest: tensors of (B, T) and an attention mask."""
    longest = max(len(document.input_ids) for document in documents)

    def rows(values: Iterable[list[int]], fill: int) -> Tensor:
        return torch.tensor([value + [fill] * (longest - len(value)) for value in values])

    batch: Batch = {
        # Any id serves as padding: the mask hides it and no label looks at it.
        "input_ids": rows((document.input_ids for document in documents), 0),
        "attention_mask": rows(([1] * len(document.input_ids) for document in documents), 0),
        "shift_labels": rows((shifted(document.labels) for document in documents), IGNORED),
    }
    if _have_gaps(documents):
        batch["position_ids"] = rows((list(_positions(document)) for document in documents), 0)
    return batch


def size_of(batch: Batch) -> tuple[int, int]:
    """Return how many tokens, padding included, and documents a micro-batch holds."""
    ids, bounds = batch["input_ids"], batch.get("cu_seq_lens_q")
    assert isinstance(ids, Tensor)
    return ids.numel(), len(bounds) - 1 if isinstance(bounds, Tensor) else len(ids)


def shifted(labels: list[int]) -> list[int]:
    """Move each label to the position that predicts it; the last position predicts nothing."""
    return [*labels[1:], IGNORED]


def shifted_weights(documents: Sequence[Document]) -> Tensor | None:
    """Return (S,) weights of the supervised tokens of ``documents``; None if all weigh 1.

    They are in the order in which the model returns logits: document after document, both
    flattened and padded.
    """
    if all(document.weights is None for document in documents):
        return None
    weights: list[float] = []
    for document in documents:
        of = document.weights or [1.0] * len(document.labels)
        pairs = zip(document.labels[1:], of[1:], strict=True)
        weights.extend(weight for label, weight in pairs if label != IGNORED)
    return torch.tensor(weights)


class BatchLayout(NamedTuple):
    """How micro-batches are laid out: which documents go together, and as what tensors."""

    name: str
    pack: Callable[[Sequence[Sequence[int]], int], list[list[int]]]
    build: Callable[[Sequence[Document]], Batch]

    def groups(self, documents: Sequence[Document], budget: int) -> list[list[Document]]:
        """Divide ``documents`` into micro-batches of at most ``budget`` tokens, units unparted."""
        units = gathered(documents, lambda document: document.group)
        lengths = [[len(document.input_ids) for document in unit] for unit in units]
        return [
            [document for index in chosen for document in units[index]]
            for chosen in self.pack(lengths, budget)
        ]

    def micro_batches(self, documents: Sequence[Document], budget: int) -> Iterator[Batch]:
        """Yield the tensors of ``groups``."""
        return map(self.build, self.groups(documents, budget))


FLATTENED = BatchLayout("flattened", pack, flattened)
PADDED = BatchLayout("padded", pack_rows, padded)

NOTHING = Document([0, 0], [IGNORED, IGNORED])
"""Stands in where a process has no example, or fewer micro-batches than another."""


def as_document(item: Any) -> Document:  # noqa: ANN401 - a Document or a mapping
    """Return ``item`` as a document; a mapping may hold ``weights`` and ``example`` too."""
    if isinstance(item, Document):
        return item
    weights = item.get("weights")
    return Document(
        list(item["input_ids"]),
        list(item["labels"]),
        None if weights is None else list(weights),
        item.get("example", -1),
    )
