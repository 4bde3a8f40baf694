"""Where rows come from: a named dataset, a file, a folder, or a dataset on the hub."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from response_tuning import hub
from response_tuning.artifacts import file_digest
from response_tuning.configs import DataConfig
from response_tuning.data import files
from response_tuning.data.columns import Columns, row_turns
from response_tuning.data.conversations import Turn, UnusableRow
from response_tuning.data.survey import Survey, survey
from response_tuning.errors import ConfigError, DataError
from response_tuning.miniature import examples
from response_tuning.readers import Row, read, read_texts
from response_tuning.registry import Registry, unknown


@dataclass(frozen=True)
class Dataset:
    """A published dataset, and which part of it the paper trains on; or one that is made here.

    It has a hub id, the address of a file, or what makes its rows.
    """

    hub_id: str | None = None
    file: str | None = None
    """Where it is published as a file of which the user names a copy."""
    made: Callable[[], Iterator[dict[str, str]]] | None = None
    """Makes the rows, always the same."""
    first_rows: int | None = None
    """How many rows are used, from the first on; None means all."""
    first_turn_only: bool = False


DATASETS: Registry[Dataset] = Registry("dataset")
DATASETS.register("alpaca")(Dataset("yahma/alpaca-cleaned"))
DATASETS.register("dolly")(Dataset("databricks/databricks-dolly-15k"))
DATASETS.register("miniature")(Dataset(made=examples.tuning_rows))
DATASETS.register("miniature-refusals")(Dataset(made=examples.refusal_rows))
DATASETS.register("lima")(Dataset("GAIR/lima", first_rows=1000, first_turn_only=True))
DATASETS.register("safety-tuned-llamas")(  # Bianchi et al. 2023, the paper's refusals
    Dataset(
        file="https://raw.githubusercontent.com/vinid/safety-tuned-llamas/main/data/training/"
        "safety_only_data_Instructions.json"
    )
)


@dataclass(frozen=True)
class Source:
    """Rows that can be read more than once, and where they are from."""

    name: str
    """What messages call it: the path as given, or the hub id."""
    rows: Callable[[], Iterator[Row]]
    look_up: Callable[[], dict[str, Any]]
    """Finds ``origin``."""
    path: Path | None = None
    """Where it lies, if it lies here."""
    first_rows: int | None = None
    first_turn_only: bool = False

    @cached_property
    def origin(self) -> dict[str, Any]:
        """For the audit: path and digest, or hub id and commit.

        A digest is as much work as reading; what cannot be read is better found out first.
        """
        return self.look_up()


def find(config: DataConfig) -> Source:
    """Find the source that ``config`` asks for: a named dataset, then a path, then the hub.

    Raises:
        ConfigError: a setting has no effect on this source, or a dataset that is published as a
            file lacks the path of a copy.
        DataError: there is no such source, or it cannot be read.
    """
    if config.source in DATASETS.names():
        dataset = DATASETS.get(config.source)
        return _made(config, dataset.made) if dataset.made else _named(dataset, config)
    if config.path is not None:
        raise ConfigError(
            f"--path {config.path} is for a local copy of a named dataset "
            f"({', '.join(DATASETS.names())}), and '{config.source}' is none; give the path "
            "itself as the source"
        )
    if config.source and (Path(config.source).exists() or Path(config.source).is_symlink()):
        return _local(Path(config.source), config)
    if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", config.source) and not files.is_file_name(
        config.source
    ):
        return _on_hub(config.source, config)
    raise DataError(
        f"'{config.source}': no such file or folder, and "
        f"{unknown('dataset', config.source, DATASETS.names())}"
    )


def columns(source: Source) -> Survey:
    """Look at the columns of all rows that can be read.

    Raises:
        DataError: there is no such row.
    """
    found = survey(row.fields for row in source.rows() if not row.fault)
    if not found.rows:
        raise DataError(f"{source.name}: it has no rows")
    return found


def turns(source: Source, number: int, row: Row, used: Columns) -> list[Turn]:
    """Return the assistant turns of row ``number``: at least one.

    Raises:
        UnusableRow: it has none, or is not used; the message says why.
    """
    if row.fault:
        raise UnusableRow(row.fault)
    if source.first_rows is not None and number >= source.first_rows:
        raise UnusableRow(f"beyond the first {source.first_rows:,} rows, which the paper uses")
    return row_turns(row.fields, used)


def _made(config: DataConfig, made: Callable[[], Iterator[dict[str, str]]]) -> Source:
    defaults = {"path": None, "revision": "main", "split": "train"}
    for flag, default in defaults.items():
        if getattr(config, flag) != default:
            raise ConfigError(f"dataset '{config.source}' is made here, so --{flag} has no use")
    rows = [
        Row(f"{config.source}: record {number}", dict(fields))
        for number, fields in enumerate(made(), start=1)
    ]
    content = json.dumps([row.fields for row in rows])
    return Source(
        name=config.source,
        rows=lambda: iter(rows),
        look_up=lambda: {"made": True, "sha256": hashlib.sha256(content.encode()).hexdigest()},
    )


def _named(dataset: Dataset, config: DataConfig) -> Source:
    if config.path is not None:
        if not config.path.exists():
            raise DataError(f"{config.path}: no such file or folder (--path)")
        source = _local(config.path, config)
    elif dataset.hub_id is not None:
        source = _on_hub(dataset.hub_id, config)
    else:
        raise ConfigError(
            f"dataset '{config.source}' is published as a file: download {dataset.file} and name "
            "your copy with --path FILE, or, where it is mixed in, with --mixture-path FILE "
            "(data.mixture.path)"
        )
    return replace(source, first_rows=dataset.first_rows, first_turn_only=dataset.first_turn_only)


def _on_hub(hub_id: str, config: DataConfig) -> Source:
    commit = hub.resolve(hub_id, config.revision)
    dataset = hub.load(hub_id, commit, config.split)
    return Source(
        name=hub_id,
        rows=lambda: hub.rows(dataset, hub_id),
        look_up=lambda: {"hub_id": hub_id, "commit": commit},
    )


def _local(path: Path, config: DataConfig) -> Source:
    if config.revision != "main":
        raise ConfigError(f"{path} is not on the hub, so --revision has no use")
    if config.split != "train" and path.is_file():
        raise ConfigError(f"{path} is one file, so --split has no use")
    if files.is_saved(path):
        dataset = hub.saved(path, config.split)
        return Source(
            name=str(path),
            rows=lambda: hub.rows(dataset, str(path)),
            look_up=lambda: {"path": str(path.resolve()), "sha256": file_digest(path)},
            path=path.resolve(),
        )
    chosen = files.choose(path, config.split)
    return Source(
        name=str(path),
        rows=lambda: (
            read_texts(chosen.read)
            if chosen.are_texts
            else chain.from_iterable(map(read, chosen.read))
        ),
        look_up=lambda: {
            "path": str(path.resolve()),
            "sha256": file_digest(path),
            "files_not_read": chosen.not_read,
        },
        path=path.resolve(),
    )
