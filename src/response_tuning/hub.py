"""Datasets of the ``datasets`` library: on the hub, at a commit, or from ``save_to_disk``."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.errors import DataError
from response_tuning.readers import BATCH_ROWS, Row, one_line, table_rows

if TYPE_CHECKING:
    from datasets import Dataset


def resolve(hub_id: str, revision: str, benchmark: str = "") -> str:
    """Return the commit that ``revision`` names now; ``benchmark`` is whose rows it has, if any.

    Raises:
        DataError: the hub cannot be reached, or has no such dataset or revision for this user.
    """
    from huggingface_hub import HfApi

    with _explained(hub_id, benchmark):
        commit = HfApi().dataset_info(hub_id, revision=revision).sha
    assert commit is not None  # the hub leaves it out of searches only
    return commit


def load(
    hub_id: str, commit: str, split: str, name: str | None = None, benchmark: str = ""
) -> "Dataset":
    """Return a split at ``commit``, downloaded or from the cache, memory-mapped.

    ``name`` is the configuration, for datasets that have several.

    Raises:
        DataError: it is gated, has no such split, or can only be loaded by its own code.
    """
    import datasets

    with _explained(hub_id, benchmark):
        # Without the prefix, a local folder of the same name would be loaded instead.
        return datasets.load_dataset(f"hf://datasets/{hub_id}", name, revision=commit, split=split)


def saved(path: Path, split: str) -> "Dataset":
    """Return a split of a folder that ``save_to_disk`` wrote, memory-mapped.

    A folder with a single dataset has no splits.

    Raises:
        DataError: it cannot be loaded, or has no such split.
    """
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:
        # A file may be missing, truncated or foreign: the parsers raise any class then.
        raise DataError(
            f"{path}: looks like a folder of save_to_disk, but cannot be loaded: "
            f"{one_line(error)}; save it again, or write it with to_parquet"
        ) from error
    if isinstance(loaded, datasets.Dataset):
        return loaded
    if split not in loaded:
        raise DataError(
            f"{path}: no split '{split}' (--split); it has {', '.join(loaded) or 'none'}"
        )
    return loaded[split]


def rows(dataset: "Dataset", hub_id: str) -> Iterator[Row]:
    """Yield the rows of a loaded split."""
    return table_rows(dataset.with_format("arrow").iter(batch_size=BATCH_ROWS), hub_id)


@contextmanager
def _explained(hub_id: str, benchmark: str) -> Iterator[None]:
    from datasets.exceptions import DatasetsError
    from huggingface_hub import errors

    # huggingface_hub re-exports the error of its HTTP library, which differs between versions.
    http_error = errors.HTTPError  # type: ignore[attr-defined]
    try:
        yield
    except (OSError, ValueError, RuntimeError, DatasetsError, http_error) as error:
        raise DataError(
            f"{hub_id}: cannot be loaded from the hub: {one_line(error)}; "
            f"{_next_step(error, benchmark)}"
        ) from error


def _next_step(error: Exception, benchmark: str) -> str:
    from huggingface_hub.errors import GatedRepoError

    where, copy = "the id, --revision, --split", "--path for a named dataset"
    if benchmark:
        where = f"grade.revisions.{benchmark}"
        copy = f"--set grade.paths.{benchmark}=FILE"
    if isinstance(error, GatedRepoError) or "gated" in str(error):
        return (
            "accept the licence on its hub page and log in with 'hf auth login', or use a local "
            f"copy ({copy})"
        )
    return f"check {where} and the network, or use a local copy ({copy})"
