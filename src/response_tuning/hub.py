"""Datasets of the ``datasets`` library: on the hub, pinned to a commit, or saved to a disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.errors import DataError
from response_tuning.readers import BATCH_ROWS, Row, one_line, table_rows

if TYPE_CHECKING:
    from datasets import Dataset


def resolve(hub_id: str, revision: str) -> str:
    """Return the commit that ``revision`` stands for now.

    Raises:
        DataError: the hub cannot be reached, or has no such dataset or revision for this user.
    """
    from huggingface_hub import HfApi

    with _explained(hub_id):
        commit = HfApi().dataset_info(hub_id, revision=revision).sha
    assert commit is not None  # the hub leaves it out of searches only
    return commit


def load(hub_id: str, commit: str, split: str, name: str | None = None) -> "Dataset":
    """Return a split as it is at ``commit``, downloaded or from the cache, memory-mapped.

    ``name`` is its configuration, where a dataset has several.

    Raises:
        DataError: it is gated, has no such split, or needs code of its own to load.
    """
    import datasets

    with _explained(hub_id):
        # The prefix keeps a local folder that happens to have the same name out of it.
        return datasets.load_dataset(f"hf://datasets/{hub_id}", name, revision=commit, split=split)


def saved(path: Path, split: str) -> "Dataset":
    """Return a split of what ``save_to_disk`` left in a folder, memory-mapped.

    A folder of one dataset has no splits.

    Raises:
        DataError: it cannot be loaded, or has no such split.
    """
    import datasets

    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:
        # A file of it may be missing, cut short or another one: whatever its parsers raise then.
        raise DataError(
            f"{path}: looks like a folder of save_to_disk, and cannot be loaded: "
            f"{one_line(error)}; save it again, or write it with to_parquet"
        ) from error
    if isinstance(found, datasets.Dataset):
        return found
    if split not in found:
        raise DataError(f"{path}: no split '{split}' (--split) among {', '.join(found) or 'none'}")
    return found[split]


def rows(dataset: "Dataset", hub_id: str) -> Iterator[Row]:
    """Yield the rows of a loaded split."""
    return table_rows(dataset.with_format("arrow").iter(batch_size=BATCH_ROWS), hub_id)


@contextmanager
def _explained(hub_id: str) -> Iterator[None]:
    from datasets.exceptions import DatasetsError
    from huggingface_hub import errors

    # The error of its HTTP library, which is another one from version to version.
    http_error = errors.HTTPError  # type: ignore[attr-defined]
    try:
        yield
    except (OSError, ValueError, RuntimeError, DatasetsError, http_error) as error:
        raise DataError(
            f"{hub_id}: cannot be loaded from the hub: {one_line(error)}; {_next_step(error)}"
        ) from error


def _next_step(error: Exception) -> str:
    from huggingface_hub.errors import GatedRepoError

    if isinstance(error, GatedRepoError) or "gated" in str(error):
        return (
            "accept the licence on its hub page and log in with 'hf auth login', or use a local "
            "copy (--path for a named dataset)"
        )
    return (
        "check the id, --revision, --split and the network, or use a local copy (--path for a "
        "named dataset)"
    )
