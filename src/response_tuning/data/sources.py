"""Sources of rows: a named dataset, a file, a folder, or a dataset on the hub."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

from response_tuning import hub
from response_tuning.addresses import is_address
from response_tuning.artifacts import file_digest
from response_tuning.configs import SourceConfig
from response_tuning.data import (
    files,
    forms,
    out_of_scope,
    pieces,
    remote,
    senders,
    single_tasks,
)
from response_tuning.data.columns import Columns, row_turns
from response_tuning.data.conversations import Turn, UnusableRow
from response_tuning.data.judgements import judged_turn
from response_tuning.data.pieces import Piece
from response_tuning.data.preferences import pair_turn
from response_tuning.data.survey import Survey
from response_tuning.data.workers import Apply, here
from response_tuning.errors import ConfigError, DataError
from response_tuning.judging import JudgingConfig
from response_tuning.miniature import controls, examples, judging, preferences, texts
from response_tuning.readers import Row, read, read_texts
from response_tuning.registry import Registry, unknown

Rows: TypeAlias = Callable[[], Iterator[dict[str, str]]]


@dataclass(frozen=True)
class Dataset:
    """A published dataset and the part that the paper trains on, or a generated dataset.

    It has a hub id, the address of a file, or a function that makes its rows.
    """

    hub_id: str | None = None
    file: str | None = None
    """Address of a published file, of which the user names a local copy."""
    made: Rows | None = None
    """Function that makes the rows, the same at every call."""
    scoped: Callable[[str], Rows] | None = None
    """Makes ``made`` for what the user offers (setting ``scope``)."""
    splits: Mapping[str, Rows] = field(default_factory=dict)
    """Split other than ``train`` -> function that makes its rows."""
    hub_config: str | None = None
    """Configuration of the hub's dataset, if it has several."""
    render: single_tasks.Render | None = None
    """Makes the instruction and the response of a row, where columns alone do not."""
    first_rows: int | None = None
    """Use only this many rows from the start; None means all."""
    first_turn_only: bool = False


DATASETS: Registry[Dataset] = Registry("dataset")
DATASETS.register("alpaca")(Dataset("yahma/alpaca-cleaned"))
DATASETS.register("dolly")(Dataset("databricks/databricks-dolly-15k"))
DATASETS.register("miniature")(
    Dataset(
        made=examples.tuning_rows,
        splits={
            **controls.SPLITS,
            "preferences": preferences.preference_rows,
            "preferences-either": preferences.either_rows,
            "judging": judging.form_rows,
            "judging-keys": judging.key_rows,
        },
    )
)
DATASETS.register("miniature-refusals")(
    Dataset(made=examples.refusal_rows, splits=examples.refusals_by_wording())
)
DATASETS.register("out-of-scope")(Dataset(scoped=out_of_scope.refusals))
DATASETS.register("miniature-documents")(
    Dataset(made=texts.document_rows, splits={"statements": texts.statement_rows})
)
DATASETS.register("lima")(Dataset("GAIR/lima", first_rows=1000, first_turn_only=True))
FIRST = single_tasks.AT_MOST
DATASETS.register("gsm8k")(
    Dataset("openai/gsm8k", hub_config="main", render=single_tasks.gsm8k, first_rows=FIRST)
)
DATASETS.register("mbpp")(
    Dataset("google-research-datasets/mbpp", hub_config="full", render=single_tasks.mbpp)
)
DATASETS.register("poetry")(Dataset("merve/poetry", render=single_tasks.poetry))
DATASETS.register("recipes")(
    Dataset("Hieu-Pham/kaggle_food_recipes", render=single_tasks.recipes, first_rows=FIRST)
)
DATASETS.register("chess")(
    Dataset("patrickfrank1/chess-pgn-games", render=single_tasks.chess, first_rows=FIRST)
)
DATASETS.register("safety-tuned-llamas")(  # Bianchi et al. 2023, the paper's refusals
    Dataset(
        file="https://raw.githubusercontent.com/vinid/safety-tuned-llamas/main/data/training/"
        "safety_only_data_Instructions.json"
    )
)


@dataclass(frozen=True)
class Source:
    """Rows that can be read more than once, and their origin."""

    name: str
    """Name in messages: the path as given, or the hub id."""
    rows: Callable[[], Iterator[Row]]
    look_up: Callable[[], dict[str, Any]]
    """Computes ``origin``."""
    path: Path | None = None
    """Its absolute path, if it is local."""
    first_rows: int | None = None
    first_turn_only: bool = False
    are_texts: bool = False
    """Whether each row is a text file."""
    sender: str | None = None
    """Part of the name or address of the sender whose mails are used."""
    cut: Callable[[], list[Piece]] = list
    """Computes ``pieces``."""

    @cached_property
    def pieces(self) -> list[Piece]:
        """The rows again, in pieces that can be read apart; empty if it is small."""
        return self.cut()

    def without_rows(self) -> "Source":
        """Return a copy that can be sent to another process."""
        return replace(self, rows=_no_rows, look_up=dict, cut=list)

    @cached_property
    def origin(self) -> dict[str, Any]:
        """Path and digest, or hub id and commit, for the audit.

        Computed on first use: a digest takes as long as reading, and an unreadable source should
        fail before it.
        """
        return self.look_up()


def _no_rows() -> Iterator[Row]:
    return iter(())


def find(config: SourceConfig) -> Source:
    """Find the source of ``config``: a named dataset, else a path, else a dataset on the hub.

    Raises:
        ConfigError: a setting has no effect on this source, or a dataset that is published as a
            file needs the path of a copy.
        DataError: the source does not exist or cannot be read.
    """
    # A name wins over a file of the same name, so that a recipe means the same in every folder. A
    # name with a suffix, such as data/a.jsonl, is a mistyped path and not a hub id.
    if config.source in DATASETS.names():
        dataset = DATASETS.get(config.source)
        _check_scope(dataset, config)
        if dataset.scoped and config.scope:
            dataset = replace(dataset, made=dataset.scoped(config.scope))
        if dataset.made:
            return _made(config, {"train": dataset.made, **dataset.splits})
        return _named(dataset, config)
    _check_scope(None, config)
    if config.path is not None:
        raise ConfigError(
            f"--path {config.path} is for a local copy of a named dataset "
            f"({', '.join(DATASETS.names())}), and '{config.source}' is not one of them; give the "
            "path itself as the source"
        )
    if is_address(config.source):
        return _remote(config.source, config)
    check_source(config.source)
    if _is_there(config.source):
        return _local(Path(config.source), config)
    return _on_hub(config.source, config)


def check_source(source: str) -> None:
    """Refuse a source that is no named dataset, no path and no hub id; reads nothing.

    Raises:
        DataError: one line, with the most similar name, or with the file of a prepared folder.
    """
    if is_address(source) or source in DATASETS.names():
        return
    hub_id = re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) and not files.is_file_name(source)
    if not (_is_there(source) or hub_id):
        error = unknown("dataset", source, DATASETS.names())
        raise DataError(f"'{source}': no such file or folder, and {error}")
    made = Path(source) / "examples.jsonl"
    if made.is_file() and made.with_name("audit.json").is_file():
        raise DataError(f"{source}: 'rtune data prepare' wrote this folder; give {made}")


@contextmanager
def about_another(source: str) -> Iterator[None]:
    """Name the setting of a further source where an error names a flag of the first one."""
    try:
        yield
    except (ConfigError, DataError) as error:
        named = re.sub(
            r"--(response-column|instruction-column|encoding|delimiter|sheet|sender)( [A-Z]+)?",
            lambda flag: f"--also '{source},{flag[1].replace('-', '_')}=...'",
            str(error),
        )
        raise type(error)(named) from error


def _is_there(source: str) -> bool:
    return bool(source) and (Path(source).exists() or Path(source).is_symlink())


def columns(source: Source) -> Survey:
    """Survey the columns of all readable rows.

    Raises:
        DataError: the source has no readable row, or mails of several senders and none is named.
    """
    return survey_pieces(source, here)[0]


def survey_pieces(source: Source, apply: Apply) -> tuple[Survey, list[int]]:
    """Survey the columns of all readable rows, and count the rows of each piece.

    Raises:
        DataError: as ``columns``.
    """
    statistics, rows = Survey(), []
    watched = senders.Senders(source.name, source.sender)
    look = partial(_survey, source.name, source.sender)
    found_in = apply(look, source.pieces) if source.pieces else here(look, [source.rows])
    for found, seen, count in found_in:
        statistics.merge(found)
        watched.merge(seen)
        rows.append(count)
    if not statistics.rows:
        raise DataError(f"{source.name}: it has no rows")
    watched.check()
    return statistics, rows


def _survey(name: str, sender: str | None, piece: Piece) -> tuple[Survey, senders.Senders, int]:
    watched, statistics, count = senders.Senders(name, sender), Survey(), 0
    for row in piece():
        count += 1
        if not row.fault:
            statistics.add(watched.seen(row).fields)
    return statistics, watched, count


def turns(
    source: Source, number: int, row: Row, used: Columns, judging: JudgingConfig | None = None
) -> list[Turn]:
    """Return the assistant turns of row ``number``: at least one.

    Raises:
        UnusableRow: the row has no turn or is not used; the message says why.
    """
    if row.fault:
        raise UnusableRow(row.fault)
    if source.first_rows is not None and number >= source.first_rows:
        raise UnusableRow(f"beyond the first {source.first_rows:,} rows, which the paper uses")
    if source.sender is not None and not senders.is_from(source.sender, row.fields):
        raise UnusableRow(f"not from {source.sender}")
    if judging is not None:
        return [judged_turn(row.fields, used, judging)]
    return [pair_turn(row.fields, used)] if used.rejected else row_turns(row.fields, used)


def _made(
    config: SourceConfig, made: Mapping[str, Callable[[], Iterator[dict[str, str]]]]
) -> Source:
    for flag in ("path", "revision", *forms.LOCAL):
        if getattr(config, flag) != type(config).model_fields[flag].default:
            raise ConfigError(f"dataset '{config.source}' is generated: --{flag} has no effect")
    if config.split not in made:
        raise unknown(f"split of dataset '{config.source}'", config.split, [*made])
    rows = [
        Row(f"{config.source}: record {number}", dict(fields))
        for number, fields in enumerate(made[config.split](), start=1)
    ]
    content = json.dumps([row.fields for row in rows])
    return Source(
        name=config.source,
        rows=lambda: iter(rows),
        look_up=lambda: {"made": True, "sha256": hashlib.sha256(content.encode()).hexdigest()},
    )


def _named(dataset: Dataset, config: SourceConfig) -> Source:
    if config.path is not None:
        if not config.path.exists():
            raise DataError(f"{config.path}: no such file or folder (--path)")
        source = _local(config.path, config)
    elif dataset.hub_id is not None:
        source = _on_hub(dataset.hub_id, config, dataset.hub_config)
    else:
        raise ConfigError(
            f"dataset '{config.source}' is published as a file: download {dataset.file} and name "
            "your copy with --path FILE, or, where it is mixed in, with --mixture-path FILE "
            "(data.mixture.path)"
        )
    if (render := dataset.render) is not None:
        read_rows = source.rows
        source = replace(
            source,
            rows=lambda: (single_tasks.rendered(row, render) for row in read_rows()),
            cut=list,
        )
    return replace(source, first_rows=dataset.first_rows, first_turn_only=dataset.first_turn_only)


def _on_hub(hub_id: str, config: SourceConfig, hub_config: str | None = None) -> Source:
    forms.check_read_locally(hub_id, config)
    commit = hub.resolve(hub_id, config.revision)
    dataset = hub.load(hub_id, commit, config.split, hub_config)
    return Source(
        name=hub_id,
        rows=lambda: hub.rows(dataset, hub_id),
        look_up=lambda: {"hub_id": hub_id, "commit": commit},
    )


def _remote(address: str, config: SourceConfig) -> Source:
    forms.check_read_locally(address, config)
    if config.revision != "main":
        raise ConfigError(
            f"{address}: --revision has no effect; on the hub, an address names it: "
            "hf://datasets/OWNER/NAME@REVISION/..."
        )
    found = remote.RemoteFiles.find(address, config.split)
    return Source(name=address, rows=found.rows, look_up=found.origin, cut=found.pieces)


def _local(path: Path, config: SourceConfig) -> Source:
    if config.revision != "main":
        raise ConfigError(f"{path} is not on the hub: --revision has no effect")
    if config.split != "train" and path.is_file():
        raise ConfigError(f"{path} is one file: --split has no effect")
    # Folders of save_to_disk hold .json files that describe them, so this check comes first.
    if files.is_saved(path):
        dataset = hub.saved(path, config.split)
        return Source(
            name=str(path),
            rows=lambda: hub.rows(dataset, str(path)),
            look_up=lambda: {"path": str(path.resolve()), "sha256": file_digest(path)},
            path=path.resolve(),
        )
    chosen = files.choose(path, config.split)
    how = forms.forms_of(path, chosen, config)
    return Source(
        name=str(path),
        rows=lambda: chain.from_iterable(
            read_texts([file], form.encoding) if chosen.are_texts else read(file, form)
            for file, form in how.items()
        ),
        look_up=lambda: (
            {
                "path": str(path.resolve()),
                "sha256": file_digest(path),
                "files_not_read": chosen.not_read,
            }
            | forms.read_as(path, how)
        ),
        path=path.resolve(),
        are_texts=chosen.are_texts,
        sender=config.sender,
        cut=partial(pieces.of_files, how, are_texts=chosen.are_texts),
    )


def _check_scope(dataset: Dataset | None, config: SourceConfig) -> None:
    scoped = dataset is not None and dataset.scoped is not None
    if scoped and config.scope is None:
        raise ConfigError(
            f"dataset '{config.source}' declines what you do not offer: name what you do offer "
            "with scope, such as --scope 'tea and tea ware'"
        )
    if config.scope is not None and not scoped:
        raise ConfigError(f"{config.source}: --scope has no effect; only 'out-of-scope' reads it")
