"""Encoded rows on disk: memory holds 16 bytes of a row, whatever its length.

A store is a folder that is there whole or not at all, and sealed. Its name is a digest of all that
decides what is in it: see ``run.store_folder``.
"""

import shutil
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from response_tuning import seals
from response_tuning.artifacts import read_json, sync_folder, write_json
from response_tuning.finetune.encoding import KEPT, TRUNCATED, Row
from response_tuning.finetune.examples import BytesOnDisk
from response_tuning.finetune.objectives import IGNORED
from response_tuning.finetune.steps import Document

IDS = "ids.bin"
"""The token ids of all rows end to end, as 4-byte integers of this machine."""
ROWS = "rows.bin"
"""Two such integers a row: its tokens, and how many of them, at its start, carry no loss."""
COUNTS = "counts.json"
"""What became of every example."""


class StoredDocuments(Dataset[Document]):
    """Rows of a store. Their labels follow from the ids: all but the prefix carries loss."""

    def __init__(
        self,
        ids: BytesOnDisk,
        starts: "array[int]",
        lengths: "array[int]",
        prefixes: "array[int]",
    ) -> None:
        self._ids = ids
        self._starts, self._lengths, self._prefixes = starts, lengths, prefixes

    def __len__(self) -> int:
        return len(self._lengths)

    def __getitem__(self, index: int) -> Document:
        start, end = self._starts[index], self._starts[index] + self._lengths[index]
        ids = array("i")
        ids.frombytes(self._ids[ids.itemsize * start : ids.itemsize * end])
        found, prefix = ids.tolist(), self._prefixes[index]
        return Document(found, [IGNORED] * prefix + found[prefix:])

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
            array("i", (self._prefixes[place] for place in places)),
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
    shapes = array("i")
    supervised = 0
    with (folder / IDS).open("wb") as ids:
        for row in rows:
            statuses[row.status] += 1
            if row.trained:
                array("i", row.input_ids).tofile(ids)
                shapes.extend((len(row.input_ids), len(row.input_ids) - row.supervised))
                supervised += row.supervised
    with (folder / ROWS).open("wb") as out:
        shapes.tofile(out)
    counts = {
        "examples": statuses.total(),
        KEPT: statuses.pop(KEPT, 0),
        TRUNCATED: statuses.pop(TRUNCATED, 0),
        "dropped": dict(statuses),
        "tokens": sum(shapes[0::2]),
        "supervised_tokens": supervised,
    }
    write_json(folder / COUNTS, counts)


def read(folder: Path) -> tuple[StoredDocuments, dict[str, Any]]:
    """Return the documents of a store, and what became of every example."""
    shapes = array("i")
    with (folder / ROWS).open("rb") as rows:
        shapes.frombytes(rows.read())
    lengths, prefixes = shapes[0::2], shapes[1::2]
    starts = array("q", accumulate(lengths, initial=0))[:-1]
    documents = StoredDocuments(BytesOnDisk(folder / IDS), starts, lengths, prefixes)
    return documents, read_json(folder / COUNTS)
