"""Where rows come from: a named dataset, a file, a folder, or a dataset on the hub."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from response_tuning.artifacts import file_digest
from response_tuning.configs import DataConfig
from response_tuning.data import hub
from response_tuning.data.readers import (
    COMPRESSED_SUFFIXES,
    READERS,
    TEXT_SUFFIXES,
    Row,
    read,
    read_texts,
)
from response_tuning.errors import ConfigError, DataError
from response_tuning.registry import Registry, unknown


@dataclass(frozen=True)
class Dataset:
    """A published dataset, and which part of it the paper trains on."""

    hub_id: str
    first_rows: int | None = None
    """Only so many rows are used; None means all."""
    first_turn_only: bool = False


DATASETS: Registry[Dataset] = Registry("dataset")
DATASETS.register("alpaca")(Dataset("yahma/alpaca-cleaned"))
DATASETS.register("dolly")(Dataset("databricks/databricks-dolly-15k"))
DATASETS.register("lima")(Dataset("GAIR/lima", first_rows=1000, first_turn_only=True))

SPLITS = (
    {"train", "training"},
    {"validation", "valid", "val", "dev"},
    {"test", "testing", "eval", "evaluation"},
)
"""Words in file names that say which split a file holds."""


@dataclass(frozen=True)
class Source:
    """Rows that can be read again and again, and where they are from."""

    name: str
    """What messages call it: the path as given, or the hub id."""
    rows: Callable[[], Iterator[Row]]
    origin: dict[str, Any]
    """For the audit: path and digest, or hub id and commit."""
    first_rows: int | None = None
    first_turn_only: bool = False


def find(config: DataConfig) -> Source:
    """Find the source that ``config`` asks for: a named dataset, then a path, then the hub.

    Raises:
        ConfigError: a path is given for something that is no named dataset.
        DataError: there is no such source, or it cannot be read.
    """
    if config.source in DATASETS.names():
        dataset = DATASETS.get(config.source)
        source = (
            _local(config.path, config.split)
            if config.path
            else _on_hub(dataset.hub_id, config.revision, config.split)
        )
        return replace(
            source, first_rows=dataset.first_rows, first_turn_only=dataset.first_turn_only
        )
    if config.path:
        raise ConfigError(
            f"--path {config.path} is for a local copy of a named dataset "
            f"({', '.join(DATASETS.names())}); '{config.source}' is none, so give the path itself "
            "as the source"
        )
    path = Path(config.source)
    if config.source and path.exists():
        return _local(path, config.split)
    is_file_name = path.suffix.lower() in {*READERS, *TEXT_SUFFIXES, *COMPRESSED_SUFFIXES}
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", config.source) and not is_file_name:
        return _on_hub(config.source, config.revision, config.split)
    raise DataError(
        f"'{config.source}': no such file or folder, and "
        f"{unknown('dataset', config.source, DATASETS.names())}"
    )


def _on_hub(hub_id: str, revision: str, split: str) -> Source:
    commit = hub.resolve(hub_id, revision)
    dataset = hub.load(hub_id, commit, split)
    origin = {"hub_id": hub_id, "commit": commit, "split": split}
    return Source(hub_id, lambda: hub.rows(dataset, hub_id), origin)


def _local(path: Path, split: str) -> Source:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder (--path)")
    files = _visible_files(path) if path.is_dir() else [path]
    packed = [file for file in files if file.suffix.lower() in COMPRESSED_SUFFIXES]
    if packed:
        raise DataError(f"{packed[0]}: compressed files are not read; unpack it first")
    origin: dict[str, Any] = {"path": str(path.resolve()), "sha256": file_digest(path)}
    tables = [file for file in files if file.suffix.lower() in READERS]
    if path.is_dir() and not tables and any(_is_text(file) for file in files):
        return Source(str(path), lambda: read_texts(files), origin)
    chosen = _of_split(tables, path, split)
    if not chosen:
        raise DataError(_nothing_to_read(path))
    stray = [file for file in files if _is_text(file) and file.stem.lower() not in ABOUT]
    if path.is_dir() and stray:
        raise DataError(f"{path}: holds data files ({chosen[0].name}) and texts ({stray[0].name}); separate them")
    origin["files_not_read"] = [str(f.relative_to(path)) for f in files if f not in chosen]
    return Source(str(path), lambda: (row for file in chosen for row in read(file)), origin)
