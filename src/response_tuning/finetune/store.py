"""Encoded rows on disk: memory holds 28 bytes of a row, whatever its length.

A store is a sealed folder, written atomically. Its name is a digest of everything that
decides its content: see ``dataset.store_folder``.
"""

import shutil
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from response_tuning import seals
from response_tuning.artifacts import read_json, sync_folder, write_json
from response_tuning.finetune.example_file import BytesOnDisk
from response_tuning.finetune.rows import KEPT, TRUNCATED, EncodedRow, Span, labelled, weighted
from response_tuning.finetune.steps import ALONE, Document, gathered

VERSION = 4
"""Version of the files below; a store of another version is written again."""
IDS_FILE = "ids.bin"
"""All rows end to end, as 4-byte integers of this machine: a row's token ids, then its spans.

Hidden tokens are left out; a row that has some keeps the positions of the others after the ids.
A span is three of them: its bounds and the bits of its weight, a 4-byte float.
"""
ROWS_FILE = "rows.bin"
"""Five such integers a row: see ``COLUMNS``."""
COLUMNS = ("tokens", "spans", "position of the example", "group (-1: no partners)", "hidden tokens")
COUNTS_FILE = "counts.json"
"""What became of every example."""


class StoredDocuments(Dataset[Document]):
    """Rows of a store, with the very ids and spans that were verified."""

    def __init__(self, ids: BytesOnDisk, starts: "array[int]", shapes: "array[int]") -> None:
        self._ids = ids
        self._starts = starts
        """Where each row starts in the file, in integers."""
        self.lengths, self._spans, self.examples, self.groups, self._hidden = (
            shapes[column :: len(COLUMNS)] for column in range(len(COLUMNS))
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Document:
        start, length = self._starts[index], self.lengths[index]
        end = start + _integers(length, self._spans[index], self._hidden[index])
        integers = array("i")
        size = integers.itemsize
        integers.frombytes(self._ids[size * start : size * end])
        ids, rest, positions = integers[:length].tolist(), integers[length:], None
        if self._hidden[index]:
            positions, rest = rest[:length].tolist(), rest[length:]
        spans = _spans(rest)
        weights = weighted(length, spans)
        example = self.examples[index]
        return Document(ids, labelled(ids, spans), weights, example, positions=positions)

    @property
    def extents(self) -> "array[int]":
        """Tokens of each row, hidden ones included; ``lengths`` are without them."""
        return array("i", map(int.__add__, self.lengths, self._hidden))

    @cached_property
    def units(self) -> list[list[int]] | None:
        """Positions of documents, partners together; None if no document has any."""
        if all(group == ALONE for group in self.groups):
            return None
        return gathered(range(len(self)), self.groups.__getitem__)

    def part(self, places: Sequence[int]) -> "StoredDocuments":
        """Return the documents at ``places``, in that order."""
        columns = (self.lengths, self._spans, self.examples, self.groups, self._hidden)
        return StoredDocuments(
            self._ids,
            array("q", (self._starts[place] for place in places)),
            array("i", (column[place] for place in places for column in columns)),
        )


def _integers(tokens: int, spans: int, hidden: int) -> int:
    """Return how many integers a row takes in the file of ids."""
    return tokens * (2 if hidden else 1) + 3 * spans


def _spans(integers: "array[int]") -> list[Span]:
    weights = array("f")
    weights.frombytes(integers[2::3].tobytes())
    return list(map(Span, integers[0::3], integers[1::3], weights))


def write(rows: Iterable[EncodedRow], folder: Path) -> None:
    """Write the rows that are trained on to ``folder``, and count every row."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(".partial", f"{folder.name}.", folder.parent))
    try:
        with seals.saving(partial):
            fill(partial, rows)
            seals.seal(partial)
        try:
            partial.replace(folder)
            sync_folder(folder.parent)
        except OSError:
            if not folder.exists():
                raise
            # A process on another node, which did not see this partial folder, wrote the same.
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def fill(folder: Path, rows: Iterable[EncodedRow]) -> None:
    """Write the files of a store into an existing folder; nothing there is sealed yet."""
    statuses: Counter[str] = Counter()
    remarks: Counter[str] = Counter()
    shapes = array("i")
    groups: dict[int, int] = {}
    supervised = 0
    with (folder / IDS_FILE).open("wb") as ids:
        for example, row in enumerate(rows):
            statuses[row.status] += 1
            remarks.update(row.remarks)
            if not row.trained:
                continue
            seen = row.seen
            hidden = len(row.input_ids) - len(seen.input_ids)
            array("i", seen.input_ids).tofile(ids)
            array("i", seen.positions if hidden else ()).tofile(ids)
            _as_integers(seen.spans).tofile(ids)
            # An objective's numbers may be large; the ones here count the groups.
            group = ALONE if row.group is None else groups.setdefault(row.group, len(groups))
            shapes.extend((len(seen.input_ids), len(seen.spans), example, group, hidden))
            supervised += row.supervised
    with (folder / ROWS_FILE).open("wb") as out:
        shapes.tofile(out)
    counts = {
        "examples": statuses.total(),
        KEPT: statuses.pop(KEPT, 0),
        TRUNCATED: statuses.pop(TRUNCATED, 0),
        "dropped": dict(statuses),
        "remarks": dict(remarks),
        "tokens": sum(shapes[0 :: len(COLUMNS)]),
        "supervised_tokens": supervised,
        "hidden_tokens": sum(shapes[4 :: len(COLUMNS)]),
    }
    write_json(folder / COUNTS_FILE, counts)


def _as_integers(spans: Sequence[Span]) -> "array[int]":
    weights = array("i")
    weights.frombytes(array("f", (span.weight for span in spans)).tobytes())
    triples = zip(spans, weights, strict=True)
    return array("i", (number for span, bits in triples for number in (*span[:2], bits)))


def read(folder: Path) -> tuple[StoredDocuments, dict[str, Any]]:
    """Return the documents of a store, and what became of every example."""
    shapes = array("i")
    with (folder / ROWS_FILE).open("rb") as rows:
        shapes.frombytes(rows.read())
    of_rows = (shapes[column :: len(COLUMNS)] for column in (0, 1, 4))
    sizes = map(_integers, *of_rows)
    starts = array("q", accumulate(sizes, initial=0))[:-1]
    documents = StoredDocuments(BytesOnDisk(folder / IDS_FILE), starts, shapes)
    return documents, read_json(folder / COUNTS_FILE)
