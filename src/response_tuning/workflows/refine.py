"""What ``rtune data`` does beyond preparing: responses are refined, extracted and inspected.

``DIR/original`` is what ``prepare`` left of the source, and ``DIR`` holds the same contract again,
of the rewritten responses. Every reply of the refiner is in ``DIR/journal.jsonl`` as it came.
"""

from collections.abc import Callable, Iterable, Iterator
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning.artifacts import Completion, Request, Sampling, read_json, write_json
from response_tuning.configs import DataConfig
from response_tuning.folders import locked, page_at
from response_tuning.terminal import printable, quiet_libraries
from response_tuning.workflows.data import print_audit, run_data
from response_tuning.workflows.generate import Sampler

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.data.passages import ExtractionConfig
    from response_tuning.data.refinement.refine import RefinementConfig
    from response_tuning.generate import Engine, EngineConfig


ORIGINAL = "original"
"""Sub-folder of a refinement that holds the examples as they were."""
JOURNAL = "journal.jsonl"


class Refiner(NamedTuple):
    """Who rewrites, and how."""

    engine: str
    engine_config: "EngineConfig"
    refinement: "RefinementConfig"
    retry_filtered: bool = False
    """Ask again what a filter kept the engine from answering."""


def run_refine(config: DataConfig, refiner: Refiner, out: Path, console: "Console") -> int:
    """Prepare a source and have its responses rewritten; return how many got no reply.

    The same command again asks only for what is not in the journal.

    Raises:
        ConfigError: the source is among the files that are written, or a setting is impossible.
    """
    from response_tuning.generate import check_retry, open_engine

    check_retry([refiner.engine], retry_filtered=refiner.retry_filtered)
    engine = open_engine(refiner.engine, refiner.engine_config)
    with locked(out, config, refiner.engine_config):
        run_data(config, out / ORIGINAL)
        print_audit(out / ORIGINAL, console)
        return _refine(engine, refiner, out, console)


def run_extract(
    config: "ExtractionConfig", refiner: Refiner | None, out: Path, console: "Console"
) -> int:
    """Make examples of the passages of documents; return how many a refiner did not reply to."""
    from response_tuning.generate import check_retry, open_engine

    if refiner:
        check_retry([refiner.engine], retry_filtered=refiner.retry_filtered)
    engine = open_engine(refiner.engine, refiner.engine_config) if refiner else None
    with locked(out, config, refiner and refiner.engine_config):
        prepared = _extract(config, out, console, refined=refiner is not None)
        print_audit(prepared, console)
        return _refine(engine, refiner, out, console) if engine and refiner else 0


def _extract(config: "ExtractionConfig", out: Path, console: "Console", *, refined: bool) -> Path:
    from response_tuning.data.passages import extract

    extract(config, out)
    extraction = read_json(out / "extraction.json")
    _print_extraction(extraction, console)
    data = DataConfig(
        source=str(out / "passages.jsonl"),
        response_column="text",
        max_examples=config.max_passages,
        seed=config.seed,
    )
    prepared = out / ORIGINAL if refined else out
    run_data(data, prepared)
    audit = read_json(prepared / "audit.json") | {"extraction": extraction}
    write_json(prepared / "audit.json", audit)
    return prepared


def run_inspect(
    config: DataConfig, tokenizer: str | None, html: Path | None, console: "Console", *, json: bool
) -> None:
    """Show what is in a source: in the terminal, as a page, or as one JSON object."""
    from response_tuning.data.inspection.inspection import inspect
    from response_tuning.data.inspection.page import print_inspection, write_page
    from response_tuning.data.tokens import token_counter

    quiet_libraries()
    with page_at(html, config, {"tokenizer": tokenizer}):
        found = inspect(config, token_counter(tokenizer) if tokenizer else None)
        if html is not None:
            write_page(found, html)
    if json:
        # In ASCII, so that no control character of the data reaches a terminal.
        print(dumps(found.model_dump(mode="json"), indent=2))  # noqa: T201 - this is the output
        return
    print_inspection(found, console)
    if html is not None:
        console.print(f"wrote {html}", highlight=False, soft_wrap=True)


def _refine(engine: "Engine", refiner: Refiner, out: Path, console: "Console") -> int:
    from response_tuning.data.refinement.page import print_refinement, write_page
    from response_tuning.data.refinement.refine import refine

    config, again = refiner.refinement, refiner.retry_filtered
    attempts = [_asking(engine, one, out, console, again) for one in config.attempts()]
    refine(out / ORIGINAL, attempts, config, out)
    write_page(out)
    print_refinement(out, console)
    summary = read_json(out / "refinement.json", "outcomes", "first_error")
    failed: int = summary["outcomes"]["error"]
    if failed:
        said = f"{failed:,} got no reply, the first because: {summary['first_error']}"
        console.print(f"{said}; the same command asks them again", highlight=False, soft_wrap=True)
    return failed


def _asking(
    engine: "Engine", sampling: Sampling, out: Path, console: "Console", retry_filtered: bool
) -> Callable[[Iterable[Request]], Iterator[Completion]]:
    sampler = Sampler(engine, sampling, console, retry_filtered)
    return lambda requests: sampler.complete(requests, out / JOURNAL, "rewrites")


def _print_extraction(extraction: dict[str, Any], console: "Console") -> None:
    lines = [
        f"{extraction['documents']:,} documents: {extraction['documents_used']:,} used, "
        f"{extraction['passages']:,} passages",
        *(f"{count:>9,}  {reason}" for reason, count in extraction["left_out"].items()),
    ]
    for line in lines:
        console.print(printable(line), highlight=False, soft_wrap=True)
