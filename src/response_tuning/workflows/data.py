"""``rtune data SOURCE``: a source becomes examples and an audit, once."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning import seals, terminal
from response_tuning.artifacts import (
    Request,
    digest,
    file_digest,
    read_json,
)
from response_tuning.configs import DataConfig, GradeConfig
from response_tuning.errors import ConfigError, EngineError
from response_tuning.folders import locked
from response_tuning.registry import unknown
from response_tuning.terminal import printable
from response_tuning.workflows.refine import (
    ORIGINAL,
    SOURCE,
    Rewriting,
    check_refiner,
    first_error,
    print_extraction,
    record_source,
    source_of,
)

if TYPE_CHECKING:
    from rich.console import Console


logger = logging.getLogger(__name__)

DATA = "data"
"""Sub-folder of a run that holds what the data stage left."""


_DATA = ("examples.jsonl", "dropped.jsonl", "flagged.jsonl", "audit.json")


def run_data(config: DataConfig, out: Path, how: Rewriting | None = None) -> None:
    """Turn a source into examples, unless ``out`` holds exactly that already.

    Extraction and refinement come first, and leave their files in the folder of ``how``, by default
    ``out/source``.

    Raises:
        ConfigError: ``out`` belongs to a run on other data, or what the examples are to be
            decontaminated against is neither a benchmark nor a file.
        EngineError: some responses got no reply; the same call asks them again.
    """
    from response_tuning.data import prepare

    config_digest = digest(config.model_dump_json())
    if _is_there(config, config_digest, out):
        return
    prompts = {name: _prompts(name, config) for name in config.decontamination.against}
    how = how or Rewriting(out / SOURCE, terminal.console())
    left, failed = source_of(config, run_data, how)
    if failed:
        raise EngineError(f"{how.folder}: of the responses, {first_error(how.folder, failed)}")
    prepare(left, out, prompts)
    if left is not config:
        record_source(config, how.folder, out)
    seals.seal(out, [name for name in _DATA if (out / name).exists()], config=config_digest)


def _is_there(config: DataConfig, config_digest: str, out: Path) -> bool:
    """Say whether ``out`` holds exactly what the data stage would leave; damage is logged."""
    flaw, about = seals.flaw_of_sealed(out) if (out / seals.SEAL).exists() else ("no seal", {})
    if not flaw and _is_prepared(config, out):
        return True
    # A folder without a seal is one that a kill left unfinished, or of an older version.
    same = flaw and (about["config"] == config_digest if about else _is_prepared(config, out))
    if same and (out / seals.SEAL).exists():
        logger.warning("%s/%s; the data are prepared again", out, flaw)
    trained = (out.parent / "manifest.json", out.parent / "finetune" / "manifest.json")
    if not same and out.name == DATA and out.exists() and any(path.exists() for path in trained):
        raise ConfigError(
            f"{out.parent} holds a run on other data; choose another --out, or delete the folder"
        )
    return False


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
        print_refinement(out, console)
    if failed:
        console.print(first_error(out, failed), highlight=False, soft_wrap=True)
    return failed


def print_audit(out: Path, console: "Console") -> None:
    """Print what became of the rows that ``run_data`` read, and what was found in them."""
    audit = read_json(out / "audit.json", "rows", "rows_kept", "examples", "dropped")
    held, flagged = audit.get("contaminated", {}), audit.get("flagged", {})
    lines = [f"{audit['rows']:,} rows: {audit['rows_kept']:,} kept, {audit['examples']:,} examples"]
    lines += [f"{count:>9,}  {reason}" for reason, count in audit["dropped"].items()]
    lines += ["flagged, one by one in flagged.jsonl:"] if flagged else []
    lines += [f"{count:>9,}  {what}" for what, count in flagged.items()]
    lines += [f"no prompt of {name}" for name, kinds in held.items() if not any(kinds.values())]
    for line in [*lines, f"wrote {out}"]:
        console.print(printable(line), highlight=False, soft_wrap=True, markup=False)


def _is_prepared(config: DataConfig, out: Path) -> bool:
    if not (out / "audit.json").exists():
        return False
    there = read_json(out / "audit.json")
    if there.get("config") != config.model_dump(mode="json"):
        return False
    mixture = config.mixture
    read = {
        "source": config.path or config.source,
        "refusals": mixture.path or mixture.source,
    }
    return all(_unchanged(Path(read[key]), there[key]) for key in read if key in there) and all(
        _same_prompts(name, config, there.get("against", {}).get(name))
        for name in config.decontamination.against
    )


def _unchanged(source: Path, origin: dict[str, Any]) -> bool:
    """Whether a file or folder that was read, if this was one, still has its content."""
    if "path" not in origin or not source.exists():
        return True
    return bool(origin["sha256"] == file_digest(source))


def _same_prompts(name: str, config: DataConfig, digest: str | None) -> bool:
    """Whether a benchmark, or a file of prompts that is still there, has the prompts it had."""
    from response_tuning.data import prompts_digest
    from response_tuning.grade import BENCHMARKS

    gone = name not in BENCHMARKS.names() and not Path(name).exists()
    return gone or prompts_digest(_prompts(name, config)) == digest


def _prompts(name: str, config: DataConfig) -> dict[str, str]:
    """Return what a benchmark or a file asks by its ids: the user's last message."""
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
    return {  # a later message takes the place of an earlier one
        request.item_id: message.content
        for request in requests
        for message in request.prompt
        if message.role == "user"
    }
