"""Extraction and refinement: documents and responses become the source that is prepared.

A folder of them holds, as far as the recipe says so, ``passages.jsonl`` and ``extraction.json``;
``original``, the examples as they were; and the refined examples with ``refinements.jsonl``,
``refinement.json``, ``page.html`` and the journal of every reply. ``rtune data refine`` and ``rtune
data extract`` make this folder; in a run it is ``source``, beside the data that are made from it.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning.artifacts import Completion, Request, Sampling, read_json, write_json
from response_tuning.configs import CurationConfig, DataConfig, DecontaminationConfig, MixtureConfig
from response_tuning.folders import page_at
from response_tuning.journals import Journal
from response_tuning.terminal import printable, quiet_libraries
from response_tuning.workflows.experiment import Cell
from response_tuning.workflows.generate import Sampler, copy_completions
from response_tuning.workflows.judge import check_engine

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.generate import Engine


logger = logging.getLogger(__name__)

SOURCE_FOLDER = "source"
"""Sub-folder of a run or a cell. It is not inside the data: data of a refused run are deleted, and
replies of a refiner cost money."""
ORIGINAL = "original"
"""Sub-folder of a refinement that holds the examples as they were."""
REFINER_JOURNAL = "journal.jsonl"

Prepare = Callable[[DataConfig, Path], None]


class Rewriting(NamedTuple):
    """Where and how a command extracts and refines, beside what the recipe says."""

    folder: Path
    console: "Console"
    retry_filtered: bool = False
    """Ask again what a content filter kept the refiner from answering."""
    journals: Sequence[Path] = ()
    """Journals of other cells, whose replies are used before a refiner is asked."""


def rewriting_of(
    cell: Cell, every: Iterable[Cell], run: Path, console: "Console", *, retry_filtered: bool
) -> Rewriting:
    """Return how a cell of a run extracts and refines: next to its data, and no question twice."""
    journals = [other.folder(run) / SOURCE_FOLDER / REFINER_JOURNAL for other in every]
    return Rewriting(cell.folder(run) / SOURCE_FOLDER, console, retry_filtered, journals)


def check_refiner(data: DataConfig | None) -> None:
    """Refuse a refiner that cannot be asked, before anything runs; see ``check_engine``."""
    if data is not None and data.refinement is not None:
        check_engine(data.refinement.engine, data.refinement.settings)


def unrefined(data: DataConfig) -> DataConfig:
    """Return the data without refinement, for a plan or a page, and log that it is left out."""
    if data.refinement is None:
        return data
    logger.warning("responses are shown before their refinement, which needs the refiner")
    return data.model_copy(update={"refinement": None})


def source_of(config: DataConfig, prepare: Prepare, how: Rewriting) -> tuple[DataConfig, int]:
    """Extract and refine into the folder of ``how``; return the data that are left to prepare.

    The second value is the number of responses without a reply. Passages and the draw of
    ``max_examples`` come first, so that no reply is paid for a response that is not used. Curation,
    decontamination and mixture are left: they apply to the texts that are trained on.
    """
    folder, extracted = how.folder, config.extraction is not None
    if extracted:
        config = _passages(config, folder)
    if config.refinement is None:
        return config, 0
    drawn = config.model_copy(
        update={
            "refinement": None,
            "roles": None,
            "curation": CurationConfig(),
            "mixture": MixtureConfig(),
            "decontamination": DecontaminationConfig(),
        }
    )
    prepare(drawn, folder / ORIGINAL)
    failed = _refine(config, how) if config.roles is None else write_roles(config, how)
    if extracted:
        audit = read_json(folder / "audit.json")
        extraction = read_json(folder / "extraction.json")
        write_json(folder / "audit.json", audit | {"extraction": extraction})
    # The source is now our own ``examples.jsonl``: columns, draw, revision and split applied to the
    # original one, and must not apply twice.
    read: dict[str, Any] = {"source": str(folder / "examples.jsonl"), "path": None}
    read |= {"refinement": None, "roles": None}
    columns = {"response_column": None, "instruction_column": None, "max_examples": None}
    hub = {"revision": "main", "split": "train"}
    return config.model_copy(update=read | columns | hub), failed


def record_source(config: DataConfig, folder: Path, out: Path) -> None:
    """Have the audit in ``out`` name the original source, and how ``folder`` was made of it.

    A later run compares the audit with its recipe, so the audit holds the recipe's own settings.
    """
    audit = read_json(out / "audit.json")
    if config.refinement is not None:
        refined = read_json(folder / "audit.json")
        audit["source"] = refined["source"]
        audit |= {key: refined[key] for key in ("refinement", "roles") if key in refined}
    if config.extraction is not None:
        audit["extraction"] = read_json(folder / "extraction.json")
        audit["source"] = audit["extraction"]["source"]
    write_json(out / "audit.json", audit | {"config": config.model_dump(mode="json")})


def _passages(config: DataConfig, folder: Path) -> DataConfig:
    from response_tuning.data import halves
    from response_tuning.data.passages import extract

    extract(config, folder)
    read: dict[str, Any] = {
        "source": str(folder / "passages.jsonl"),
        "path": None,
        "response_column": "text",
    }
    hub = {"revision": "main", "split": "train"}
    if config.continuation is not None:
        halves.write_halves(folder, config.continuation)
        read |= {"source": str(folder / halves.HALVES), "response_column": halves.RESPONSE}
        read |= {"instruction_column": halves.INSTRUCTION}
    done: dict[str, Any] = {"extraction": None, "continuation": None}
    return config.model_copy(update=read | hub | done)


def write_roles(data: DataConfig, how: Rewriting) -> int:
    """Give roles to the examples in ``original``; return how many got no reply.

    Raises:
        ConfigError: lm-eval, which checks rules, is not installed.
    """
    from response_tuning.data.roles.styling import style
    from response_tuning.grade.rules import check_rule, check_rules_installed

    assert data.roles is not None
    check_rules_installed("data.roles")
    attempts = _attempts(data, how, "replies")
    return style(how.folder / ORIGINAL, attempts, check_rule, data.roles, data.seed, how.folder)


def _attempts(
    data: DataConfig, how: Rewriting, label: str
) -> list[Callable[[Iterable[Request]], Iterator[Completion]]]:
    """Return a function that asks the model, for the first attempt and for each retry."""
    from response_tuning.data.refinement.refine import attempts_of
    from response_tuning.generate import open_engine

    config, journal = data.refinement, how.folder / REFINER_JOURNAL
    assert config is not None
    _copy_replies(how.journals, journal)
    engine = open_engine(config.engine, config.settings)
    return [_asking(engine, sampling, journal, how, label) for sampling in attempts_of(config)]


def _refine(data: DataConfig, how: Rewriting) -> int:
    """Rewrite the examples in ``original``; return how many got no reply."""
    from response_tuning.data.refinement.page import write_page
    from response_tuning.data.refinement.refine import refine

    folder, config = how.folder, data.refinement
    assert config is not None
    refine(folder / ORIGINAL, _attempts(data, how, "rewrites"), config, folder)
    write_page(folder)
    failed: int = read_json(folder / "refinement.json", "outcomes")["outcomes"]["error"]
    return failed


def first_error(folder: Path, failed: int) -> str:
    """Return a sentence on the responses that got no reply."""
    counts = folder / "roles.json"
    cause = read_json(counts if counts.exists() else folder / "refinement.json")["first_error"]
    return f"{failed:,} got no reply, the first because: {cause}; the same command asks them again"


def _copy_replies(others: Iterable[Path], journal: Path) -> None:
    """Copy the replies of other journals that ``journal`` lacks.

    Cells of one run refine the same responses, and each has a journal of its own so that any
    machine can take it. Copying first means that no question is asked twice.
    """
    own = journal.resolve()
    written = (other for other in others if other.exists() and other.resolve() != own)
    copy_completions((Journal(other, Completion) for other in written), journal)


def _asking(
    engine: "Engine", sampling: Sampling, journal: Path, how: Rewriting, label: str
) -> Callable[[Iterable[Request]], Iterator[Completion]]:
    sampler = Sampler(engine, sampling, how.console, how.retry_filtered)
    return lambda requests: sampler.complete(requests, journal, label)


def run_inspect(
    config: DataConfig, tokenizer: str | None, html: Path | None, console: "Console", *, json: bool
) -> None:
    """Show what is in a source: in the terminal, as a page, or as one JSON object."""
    from response_tuning.data.inspection.inspection import inspect
    from response_tuning.data.inspection.page import print_inspection, write_page
    from response_tuning.data.tokens import token_counter

    quiet_libraries()
    with page_at(html, config, {"tokenizer": tokenizer}):
        inspection = inspect(config, token_counter(tokenizer) if tokenizer else None)
        if html is not None:
            write_page(inspection, html)
    if json:
        # In ASCII, so that no control character of the data reaches a terminal.
        print(dumps(inspection.model_dump(mode="json"), indent=2))  # noqa: T201 - this is the output
        return
    print_inspection(inspection, console)
    if html is not None:
        console.print(f"wrote {html}", highlight=False, soft_wrap=True)


def print_extraction(folder: Path, console: "Console") -> None:
    """Print how many passages the documents gave, and what was left out and why."""
    extraction = read_json(folder / "extraction.json")
    cut = f", {extraction['halves']:,} cut in half" if "halves" in extraction else ""
    lines = [
        f"{extraction['documents']:,} documents: {extraction['documents_used']:,} used, "
        f"{extraction['passages']:,} passages{cut}",
        *(f"{count:>9,}  {reason}" for reason, count in extraction["left_out"].items()),
    ]
    for line in lines:
        console.print(printable(line), highlight=False, soft_wrap=True)


def print_roles(folder: Path, console: "Console") -> None:
    """Print what became of the instructions, and the ceiling and the floor of a student."""
    counts = read_json(folder / "roles.json")
    planned, rules = counts["planned"], counts["rules_written"]
    lines = [f"{counts['examples']:,} instructions: {counts['outcomes'].get('styled', 0):,} styled"]
    others = {one: number for one, number in counts["outcomes"].items() if one != "styled"}
    lines += [f"{number:>9,}  {outcome}" for outcome, number in others.items()]
    lines += [
        f"{number} rule{'s' if int(number) > 1 else ''}: the first response keeps all for "
        f"{part['kept_at_first']:,} of {part['answered']:,}"
        for number, part in counts["by_number"].items()
    ]
    lines.append(
        f"plain responses keep {counts['rules_plain_keeps']:,} of {rules:,} rules, and all rules "
        f"of {counts['plain_keeps_all']:,} of {planned:,} roles"
    )
    for line in [*lines, f"wrote {folder / 'examples.jsonl'}"]:
        console.print(printable(line), highlight=False, soft_wrap=True, markup=False)
