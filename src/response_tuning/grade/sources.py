"""Reads a benchmark's rows from a local copy, or from the hub at a recorded commit."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from response_tuning import hub
from response_tuning.artifacts import file_digest
from response_tuning.configs import GradeConfig
from response_tuning.errors import DataError
from response_tuning.readers import BLANK, READERS, TEXT_SUFFIXES, Row, read, read_texts, shown
from response_tuning.recipe import shipped

Element = TypeVar("Element")


@dataclass(frozen=True)
class BenchmarkSource:
    """A file of a benchmark: the path of a local copy, and the place of publication."""

    benchmark: str
    local: str
    """Path below ``grade.data``, such as ``advbench/harmful_behaviors.csv``."""
    hub_id: str | None = None
    """None if it is published only as a file."""
    split: str = "train"
    address: str = ""
    """Place of publication, for the error message of a user without a copy."""
    hub_config: str | None = None
    """Configuration of the hub's dataset, if it has several."""
    column: str = "text"
    """Column name for the lines of a plain text file."""


@dataclass(frozen=True)
class SourceRows:
    """The rows of a source, and where they come from."""

    rows: tuple[Row, ...]
    origin: dict[str, Any]
    """Path and SHA-256, or hub id and commit."""


def read_source(source: BenchmarkSource, config: GradeConfig) -> SourceRows:
    """Read all rows of a source.

    Raises:
        DataError: there is no copy and no dataset, or the rows cannot be read.
    """
    path = local_copy(source, config)
    if path is not None:
        rows = tuple(_rows(path, source.column))
        _check(rows, path)
        return SourceRows(rows, {"path": str(path), "sha256": file_digest(path)})
    if source.hub_id is None:
        raise DataError(
            f"{source.benchmark}: download {source.address} and name your copy with "
            f"--set grade.paths.{source.benchmark}=FILE"
        )
    # Resolved before loading, so that the recorded commit is the one that was read.
    name = source.benchmark
    commit = hub.resolve(source.hub_id, config.revisions.get(name, "main"), name)
    dataset = hub.load(source.hub_id, commit, source.split, source.hub_config, name)
    return SourceRows(
        tuple(hub.rows(dataset, source.hub_id)), {"hub_id": source.hub_id, "commit": commit}
    )


def local_copy(source: BenchmarkSource, config: GradeConfig) -> Path | None:
    """Return the local copy that ``config`` names; None if it names none.

    Raises:
        DataError: the named file does not exist.
    """
    # A path of this benchmark is more specific than the folder of all copies, so it wins.
    named = config.paths.get(source.benchmark)
    if named is not None:
        path = named / Path(source.local).name if named.is_dir() else shipped(named)
    elif config.data is not None:
        path = config.data / source.local
    else:
        return None
    if not path.exists():
        raise DataError(f"{path}: no such file; expected a copy of {source.benchmark} here")
    return path


def cell(row: Row, *columns: str) -> str:
    """Return the text of the first of these columns that exists: copies name columns differently.

    Raises:
        DataError: there is no such column, or no text in it.
    """
    column = next((column for column in columns if column in row.fields), None)
    if column is None:
        known = ", ".join(map(shown, row.fields))
        raise DataError(f"{row.where}: no column '{' or '.join(columns)}' among {known}")
    value = row.fields[column]
    if not isinstance(value, str):
        raise DataError(f"{row.where}: expected text in '{column}', found {shown(value)}")
    return value


def spread(items: Sequence[Element], limit: int | None) -> list[Element]:
    """Return ``limit`` of the items, evenly spread; without a limit, all of them."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[place * len(items) // limit] for place in range(limit)]


def _rows(path: Path, column: str) -> Iterator[Row]:
    if path.suffix.lower() in READERS:
        yield from read(path)
        return
    if path.suffix.lower() not in TEXT_SUFFIXES:
        known = ", ".join((*READERS, *TEXT_SUFFIXES))
        raise DataError(f"{path}: unknown suffix; known are {known}")
    (whole,) = read_texts([path])
    # Not splitlines, which also cuts where Unicode and old printers end a line.
    for number, line in enumerate(whole.fields["text"].split("\n"), start=1):
        fault = "" if line.strip() else BLANK
        yield Row(f"{path}:{number}", {column: line}, fault)


def _check(rows: Sequence[Row], path: Path) -> None:
    for row in rows:
        if row.fault:
            raise DataError(f"{row.where}: {row.fault}")
    if not rows:
        raise DataError(f"{path}: it has no rows")
