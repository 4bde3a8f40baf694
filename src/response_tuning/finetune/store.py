"""Encoded rows on disk: memory holds 16 bytes of a row, whatever its length.

A store is a folder that is there whole or not at all, and sealed. Its name is a digest of all that
decides what is in it: see ``run.store_folder``.
"""

import shutil
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from response_tuning import seals
from response_tuning.artifacts import read_json, sync_folder, write_json
from response_tuning.finetune.encoding import KEPT, TRUNCATED, Row, labelled
from response_tuning.finetune.example_file import BytesOnDisk
from response_tuning.finetune.steps import Document

VERSION = 2
"""Of what the files below hold; a store of another version is written again."""
IDS = "ids.bin"
"""All rows end to end, as 4-byte integers of this machine: a row's token ids, then its spans."""
ROWS = "rows.bin"
"""Two such integers a row: its tokens, and its spans that carry loss, of two integers each."""
COUNTS = "counts.json"
"""What became of every example."""


class StoredDocuments(Dataset[Document]):
    """Rows of a store, with the very ids and spans that were verified."""

    def __init__(
        self,
        ids: BytesOnDisk,
        starts: "array[int]",
        lengths: "array[int]",
        spans: "array[int]",
    ) -> None:
        self._ids = ids
        self._starts, self._lengths, self._spans = starts, lengths, spans

    def __len__(self) -> int:
        return len(self._lengths)

    def __getitem__(self, index: int) -> Document:
        start, length = self._starts[index], self._lengths[index]
        end = start + length + 2 * self._spans[index]
        found = array("i")
        found.frombytes(self._ids[found.itemsize * start : found.itemsize * end])
        ids, bounds = found[:length].tolist(), found[length:]
        return Document(ids, labelled(ids, zip(bounds[::2], bounds[1::2], strict=True)))

    @property
    def lengths(self) -> Sequence[int]:
        """Tokens of each document."""
        return self._lengths

    def part(self, places: Sequence[int]) -> "StoredDocuments":
        """Return the documents at ``places``, in that order."""
        return StoredDocuments(
            self._ids,
            array("q", (self._starts[place] for place in places)),
            array("i", (self._lengths[place] for place in places)),
            array("i", (self._spans[place] for place in places)),
        )


def write(rows: Iterable[Row], folder: Path) -> None:
    """Leave the rows that are trained on in ``folder``, and count all of them."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(".partial", f"{folder.name}.", folder.parent))
    try:
        with seals.saving(partial):
            _write(rows, partial)
            seals.seal(partial)
        try:
            partial.replace(folder)
            sync_folder(folder.parent)
        except OSError:
            if not folder.exists():
                raise
            # Another process, on a node that did not see this one's, has written the same.
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(rows: Iterable[Row], folder: Path) -> None:
    statuses: Counter[str] = Counter()
    remarks: Counter[str] = Counter()
    shapes = array("i")
    supervised = 0
    with (folder / IDS).open("wb") as ids:
        for row in rows:
            statuses[row.status] += 1
            remarks.update(row.remarks)
            if row.trained:
                array("i", (*row.input_ids, *chain(*row.spans))).tofile(ids)
                shapes.extend((len(row.input_ids), len(row.spans)))
                supervised += row.supervised
    with (folder / ROWS).open("wb") as out:
        shapes.tofile(out)
    counts = {
        "examples": statuses.total(),
        KEPT: statuses.pop(KEPT, 0),
        TRUNCATED: statuses.pop(TRUNCATED, 0),
        "dropped": dict(statuses),
        "remarks": dict(remarks),
        "tokens": sum(shapes[0::2]),
        "supervised_tokens": supervised,
    }
    write_json(folder / COUNTS, counts)


def read(folder: Path) -> tuple[StoredDocuments, dict[str, Any]]:
    """Return the documents of a store, and what became of every example."""
    shapes = array("i")
    with (folder / ROWS).open("rb") as rows:
        shapes.frombytes(rows.read())
    lengths, spans = shapes[0::2], shapes[1::2]
    sizes = (length + 2 * count for length, count in zip(lengths, spans, strict=True))
    starts = array("q", accumulate(sizes, initial=0))[:-1]
    documents = StoredDocuments(BytesOnDisk(folder / IDS), starts, lengths, spans)
    return documents, read_json(folder / COUNTS)
