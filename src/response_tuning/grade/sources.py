"""Where a benchmark's rows come from: a local copy, or the hub at a recorded commit."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from response_tuning import hub
from response_tuning.artifacts import file_digest
from response_tuning.configs import GradeConfig
from response_tuning.errors import DataError
from response_tuning.readers import Row, read, shown

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """A file of a benchmark: where a local copy lies, and where it is published."""

    benchmark: str
    local: str
    """Path below ``grade.data``, such as ``advbench/harmful_behaviors.csv``."""
    hub_id: str | None = None
    """None: it is published as a file only."""
    split: str = "train"
    address: str = ""
    """Where the file is published, for the error of a user who has no copy."""


@dataclass(frozen=True)
class Rows:
    """The rows of a source, read once, and where they are from."""

    rows: tuple[Row, ...]
    origin: dict[str, Any]
    """Path and SHA-256, or hub id and commit."""


def read_source(source: Source, config: GradeConfig) -> Rows:
    """Read all rows of a source.

    Raises:
        DataError: it is nowhere, or cannot be read.
    """
    path = local_copy(source, config)
    if path is not None:
        found = tuple(read(path))
        _check(found, path)
        return Rows(found, {"path": str(path), "sha256": file_digest(path)})
    if source.hub_id is None:
        raise DataError(
            f"{source.benchmark}: download {source.address} and name your copy with "
            f"--set grade.paths.{source.benchmark}=FILE"
        )
    commit = hub.resolve(source.hub_id, config.revisions.get(source.benchmark, "main"))
    dataset = hub.load(source.hub_id, commit, source.split)
    return Rows(
        tuple(hub.rows(dataset, source.hub_id)), {"hub_id": source.hub_id, "commit": commit}
    )


def local_copy(source: Source, config: GradeConfig) -> Path | None:
    """Return the local copy that ``config`` names; None where it names none.

    Raises:
        DataError: it names one that is not there.
    """
    named = config.paths.get(source.benchmark)
    if named is not None:
        path = named / Path(source.local).name if named.is_dir() else named
    elif config.data is not None:
        path = config.data / source.local
    else:
        return None
    if not path.exists():
        raise DataError(f"{path}: no such file; it would be {source.benchmark}'s")
    return path


def cell(row: Row, column: str) -> str:
    """Return the text of a column.

    Raises:
        DataError: there is no such column, or no text in it.
    """
    if column not in row.fields:
        there = ", ".join(map(shown, row.fields))
        raise DataError(f"{row.where}: no column '{column}' among {there}")
    value = row.fields[column]
    if not isinstance(value, str):
        raise DataError(f"{row.where}: expected text in '{column}', found {shown(value)}")
    return value


def spread(found: Sequence[T], limit: int | None) -> list[T]:
    """Return ``limit`` of the items found, evenly spread; all of them without a limit."""
    if limit is None or limit >= len(found):
        return list(found)
    return [found[place * len(found) // limit] for place in range(limit)]


def _check(rows: Sequence[Row], path: Path) -> None:
    for row in rows:
        if row.fault:
            raise DataError(f"{row.where}: {row.fault}")
    if not rows:
        raise DataError(f"{path}: it has no rows")
