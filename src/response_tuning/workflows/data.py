"""``rtune data SOURCE``: a source becomes examples and an audit, once."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning import seals, terminal
from response_tuning.addresses import filesystem, is_address, upload
from response_tuning.artifacts import (
    Request,
    digest,
    file_digest,
    read_json,
)
from response_tuning.configs import DataConfig, GradeConfig, SourceConfig
from response_tuning.errors import ConfigError, DataError, EngineError
from response_tuning.folders import FolderState, folder_state, locked
from response_tuning.models.files import cache_folder
from response_tuning.registry import unknown
from response_tuning.terminal import printable
from response_tuning.workflows.refine import (
    ORIGINAL,
    SOURCE_FOLDER,
    Rewriting,
    check_refiner,
    first_error,
    print_extraction,
    print_roles,
    record_source,
    source_of,
)

if TYPE_CHECKING:
    from rich.console import Console


logger = logging.getLogger(__name__)

DATA = "data"
"""Sub-folder of a run with the output of the data stage."""
_FILES = ("examples.jsonl", "dropped.jsonl", "flagged.jsonl", "audit.json")


def run_data(
    config: DataConfig, out: Path, how: Rewriting | None = None, processes: int = 1
) -> None:
    """Turn a source into examples, unless ``out`` already holds exactly these.

    Extraction and refinement come first, and leave their files in the folder of ``how``, by default
    ``out/source``.

    Raises:
        ConfigError: ``out`` belongs to a run on other data, or ``decontamination.against`` names
            neither a benchmark nor a file.
        EngineError: some responses got no reply; the same call asks them again.
    """
    from response_tuning.data import prepare

    state = _state(config, out)
    if state.whole:
        return
    same = state.recorded and not state.changed
    if same and (out / seals.SEAL).exists():
        logger.warning("%s/%s; the data are prepared again", out, state.flaw)
    if not same:
        _check_unused(out)
    # Read before extraction and refinement, so that a wrong name fails before any reply is paid.
    prompts = {name: _prompts(name, config) for name in config.decontamination.against}
    how = how or Rewriting(out / SOURCE_FOLDER, terminal.console())
    left, failed = source_of(config, run_data, how)
    if failed:
        raise EngineError(f"{how.folder}: of the responses, {first_error(how.folder, failed)}")
    prepare(left, out, prompts, processes)
    if left is not config:
        record_source(config, how.folder, out)
    # The seal comes last: only a whole folder has one.
    names = [name for name in _FILES if (out / name).exists()]
    seals.seal(out, names, config=_config_digest(config))


def run_prepare(config: DataConfig, out: str, console: "Console", processes: int = 1) -> None:
    """Turn a source into examples in ``out``, and print how many there are.

    ``out`` is a folder or an address. For an address, the examples are made in the cache of this
    machine, where they stay, and are then uploaded, the seal last.

    Raises:
        ConfigError: ``processes`` is negative; 0 means all processors.
        DataError: the address cannot be written to.
    """
    processes = checked_processes(processes)
    check_refiner(config)
    folder = folder_of(out, "prepared")
    with locked(folder, config):
        run_data(config, folder, Rewriting(folder / SOURCE_FOLDER, console), processes)
        print_audit(folder, console)
        deliver(folder, out, [name for name in _FILES if (folder / name).exists()], console)


def checked_processes(processes: int) -> int:
    """Return how many processes to use; 0 means all processors.

    Raises:
        ConfigError: ``processes`` is negative.
    """
    from response_tuning.data import available

    if processes < 0:
        raise ConfigError(f"--processes {processes}: give 1 or more, or 0 for all processors")
    return processes or available()


def folder_of(out: str, kind: str) -> Path:
    """Return the folder where a command works: ``out``, or one in the cache for an address.

    Raises:
        ConfigError: the address cannot be opened.
    """
    if not is_address(out):
        return Path(out)
    filesystem(out)  # before any work
    return cache_folder() / kind / digest(out)


def deliver(folder: Path, out: str, names: Sequence[str], console: "Console") -> None:
    """Upload sealed files if ``out`` is an address, the seal last.

    Raises:
        DataError: the address cannot be written to.
    """
    if is_address(out):
        upload(folder, out, [seals.SEAL, *names])
        console.print(printable(f"uploaded to {out}"), highlight=False, soft_wrap=True)


def is_prepared_from(audit: Mapping[str, Any], config: DataConfig) -> bool:
    """Whether an audit is that of data that ``config`` would give now."""
    return all(audit.get(name) == value for name, value in _inputs(config, audit).items())


def _state(config: DataConfig, out: Path) -> FolderState:
    """Compare the examples in ``out``, if any, with what the data stage would leave there."""
    sealed = (out / seals.SEAL).exists()
    # A folder without a seal is one that a kill left unfinished, or of an older version.
    flaw, about = seals.flaw_of_sealed(out) if sealed else ("no seal", {})
    if flaw and about:  # the damaged file may be the audit
        recorded = {"config": about["config"]}
        state = folder_state(out, recorded, {"config": _config_digest(config)})
    else:
        audit = read_json(out / "audit.json") if (out / "audit.json").exists() else None
        state = folder_state(out, audit, _inputs(config, audit or {}))
    return replace(state, flaw=flaw)


def _inputs(config: DataConfig, audit: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the examples would be made from now, by the names that an audit gives it.

    What was read and is gone since counts as unchanged: it is not needed again.
    """
    found: dict[str, Any] = {"config": config.model_dump(mode="json")}
    if audit.get("config") != found["config"]:
        return found  # without hashing sources, which may be large
    mixture = config.mixture
    sources: dict[str, SourceConfig] = {"source": config, "refusals": mixture}
    for key in sources.keys() & audit.keys():
        found[key] = _read_again(audit[key], sources[key])
    if config.also:
        found["also"] = [*map(_read_again, audit["also"], config.also)]
    against = config.decontamination.against
    if against:
        recorded = audit.get("against", {})
        found["against"] = recorded | {
            name: _prompts_digest(name, config) for name in against if _can_be_read(name)
        }
    return found


def _read_again(origin: dict[str, Any], config: SourceConfig) -> dict[str, Any]:
    """Return a source's origin with today's digest, if its path or address still exists."""
    from response_tuning.data import origin_at

    path = Path(config.path or config.source)
    if "path" in origin and path.exists():
        return origin | {"sha256": file_digest(path)}
    if "address" in origin:
        with suppress(DataError):
            return origin | origin_at(config.source, config.split)
    return origin


def _check_unused(out: Path) -> None:
    """Refuse to replace the examples that a model was tuned on.

    Raises:
        ConfigError: there is such a model beside them.
    """
    from response_tuning.finetune.run_folder import MANIFEST, model_of

    # Beside the data: the model of a cell, of a single run, and of one by an earlier version.
    tuned = (out.parent / "finetune", model_of(out.parent), out.parent)
    used = next((model for model in tuned if (model / MANIFEST).exists()), None)
    if out.name == DATA and out.exists() and used is not None:
        raise ConfigError(
            f"{used} holds a run on other data; choose another --out, or delete {used} and {out}"
        )


def _config_digest(config: DataConfig) -> str:
    return digest(config.model_dump_json())


def run_rewriting(
    config: DataConfig, out: Path, console: "Console", *, retry_filtered: bool = False
) -> int:
    """Extract and refine a source into ``out``; return how many responses got no reply.

    The same command again asks only for what is not in the journal.

    Raises:
        ConfigError: the source is among the files that are written, or a setting is impossible.
    """
    from response_tuning.data.refinement.page import print_refinement
    from response_tuning.generate import check_retry

    # Before the folder is created: a refiner without a key should leave nothing behind.
    check_refiner(config)
    engines = [config.refinement.engine] if config.refinement else []
    check_retry(engines, retry_filtered=retry_filtered)
    how = Rewriting(out, console, retry_filtered)
    with locked(out, config):
        if config.refinement is None:
            run_data(config, out, how)
            print_extraction(out, console)
            print_audit(out, console)
            return 0
        _, failed = source_of(config, run_data, how)
        if config.extraction is not None:
            print_extraction(out, console)
        print_audit(out / ORIGINAL, console)
        if config.roles is not None:
            print_roles(out, console)
        else:
            print_refinement(out, console)
    if failed:
        console.print(first_error(out, failed), highlight=False, soft_wrap=True)
    return failed


def run_decide(out: Path, file: Path, console: "Console") -> None:
    """Apply what a person accepted and rejected on the page of the refinement in ``out``.

    Raises:
        DataError: ``out`` holds no refinement, or ``file`` decides on something else.
    """
    from response_tuning.data.refinement.decisions import decide
    from response_tuning.data.refinement.page import print_refinement, write_page

    read_json(out / "refinement.json", "outcomes")  # before the folder is touched
    with locked(out):  # the file may lie inside, where a browser saved it, and is read whole first
        decided = decide(out, file)
        write_page(out)
        print_refinement(out, console)
    console.print(
        f"{decided.accepted:,} accepted, {decided.rejected:,} rejected: their originals are used",
        highlight=False,
        soft_wrap=True,
    )


def print_audit(out: Path, console: "Console") -> None:
    """Print how many rows ``run_data`` kept, why it dropped others, and what it flagged."""
    audit = read_json(out / "audit.json", "rows", "rows_kept", "examples", "dropped")
    contaminated, flagged = audit.get("contaminated", {}), audit.get("flagged", {})
    lines = [f"{audit['rows']:,} rows: {audit['rows_kept']:,} kept, {audit['examples']:,} examples"]
    lines += [f"{count:>9,}  {reason}" for reason, count in audit["dropped"].items()]
    lines += ["flagged, one by one in flagged.jsonl:"] if flagged else []
    lines += [f"{count:>9,}  {what}" for what, count in flagged.items()]
    lines += [f"no prompt of {n}" for n, kinds in contaminated.items() if not any(kinds.values())]
    for line in [*lines, f"wrote {out}"]:
        console.print(printable(line), highlight=False, soft_wrap=True, markup=False)


def _can_be_read(name: str) -> bool:
    """Whether prompts have a name of a benchmark, or of a file that still exists."""
    from response_tuning.grade import BENCHMARKS

    return name in BENCHMARKS.names() or Path(name).exists()


def _prompts_digest(name: str, config: DataConfig) -> str:
    from response_tuning.data import prompts_digest

    return prompts_digest(_prompts(name, config))


def _prompts(name: str, config: DataConfig) -> dict[str, str]:
    """Return id -> the user's last message, of the prompts of a benchmark or a file."""
    from response_tuning.data import read_prompts
    from response_tuning.grade import BENCHMARKS, open_benchmark

    requests: Iterable[Request]
    if name in BENCHMARKS.names():
        copies = GradeConfig(data=config.decontamination.data)
        requests = open_benchmark(name, copies).items()
    elif Path(name).exists():
        requests = read_prompts(Path(name))
    else:
        raise ConfigError(
            f"decontamination.against: '{name}' is no file, and "
            f"{unknown('benchmark', name, BENCHMARKS.names())}"
        )
    return {  # of several messages with one id, the last one stays
        request.item_id: message.content
        for request in requests
        for message in request.prompt
        if message.role == "user"
    }
