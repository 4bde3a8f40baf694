"""Stages 3 and 4 for one model: it answers benchmarks, and the answers are graded.

    <cell>/generate/<benchmark>.jsonl    <cell>/grade/<benchmark>.jsonl

Generations are on disk before anything judges them, and so is each reply of a judge.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning import templates
from response_tuning.artifacts import (
    Sampling,
    digest,
    read_json,
    write_json,
    write_jsonl,
)
from response_tuning.configs import GenerateConfig, GradeConfig
from response_tuning.errors import ConfigError, EngineError
from response_tuning.terminal import progress_bar
from response_tuning.validation import build
from response_tuning.workflows.data import DATA
from response_tuning.workflows.experiment import Cell, Experiment
from response_tuning.workflows.generate import filtered_sentence
from response_tuning.workflows.judge import check_engine

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.configs import EngineConfig


MANIFEST = "manifest.json"
JOURNAL = "completions.journal"
"""Of all seeds of a variant, so that an untuned model is asked once."""


def check_answering(cell: Cell, folder: Path) -> None:
    """Refuse settings of what answers for a cell; see ``check_engine``."""
    config = engine_config(cell, folder)
    at_once = GenerateConfig.model_fields["tokens_per_batch"].default
    if not cell.local and cell.generate.tokens_per_batch != at_once:
        raise ConfigError(
            f"variant '{cell.variant}': generate.tokens_per_batch has no effect with engine "
            f"'{cell.generate.engine}'; remove it"
        )
    check_engine(cell.generate.engine, config)


def answer(
    cell: Cell,
    benchmarks: Sequence[str],
    config: GradeConfig,
    folder: Path,
    console: "Console",
    *,
    retry_filtered: bool = False,
) -> None:
    """Have the cell's model answer every benchmark that is answered in words.

    What a filter kept it from answering is an outcome, and asked again with ``retry_filtered``.

    Raises:
        EngineError: some prompts got no answer; the same call asks them again.
    """
    from response_tuning.generate import generate, open_engine
    from response_tuning.grade import Exporting, open_benchmark, open_lm_eval

    benchmarks = [name for name in benchmarks if open_lm_eval(name) is None]
    if not benchmarks:
        return
    settings = engine_config(cell, folder)
    sampling = Sampling(
        **cell.generate.model_dump(include={"max_new_tokens", "temperature", "top_p", "stop"}),
        seed=cell.seed if cell.generate.temperature else 0,
    )
    rules = {name: open_benchmark(name, config) for name in benchmarks}
    items = {name: rule.items() for name, rule in rules.items()}
    asked = {
        "model": _identity(cell, settings),
        "template": settings.template and templates.identity(settings.template),
        "sampling": sampling.model_dump(mode="json"),
        "items": {
            name: digest(*(item.model_dump_json() for item in requests))
            for name, requests in items.items()
        },
    }
    files = {name: folder / "generate" / f"{name}.jsonl" for name in benchmarks}
    manifest = folder / "generate" / MANIFEST
    there = manifest.exists() and read_json(manifest) == asked
    if there and all(map(Path.exists, files.values())) and not retry_filtered:
        console.print("answers: there already", highlight=False)
        return
    engine = open_engine(cell.generate.engine, settings)
    for name, requests in items.items():
        journal = folder.parent / JOURNAL
        with progress_bar(f"answers to {name}", console) as advance:
            said = generate(
                engine,
                requests,
                journal,
                sampling,
                progress=advance,
                retry_filtered=retry_filtered,
            )
        completions = list(said)
        failed = [completion for completion in completions if completion.error is not None]
        if failed:
            raise EngineError(
                f"{len(failed)} of {len(completions)} prompts of {name} got no answer, the first "
                f"because: {failed[0].error}; the same command asks them again"
            )
        write_jsonl(files[name], completions)
        if filtered := filtered_sentence(completions):
            console.print(f"{name}: {filtered}", highlight=False, soft_wrap=True)
        rule = rules[name]
        exported = rule.export(completions, cell.variant) if isinstance(rule, Exporting) else {}
        for suffix, content in exported.items():
            write_json(files[name].with_name(f"{name}.{suffix}"), content)
    write_json(manifest, asked)


def measure_core(
    cell: Cell, benchmarks: Sequence[str], config: GradeConfig, folder: Path, console: "Console"
) -> None:
    """Have lm-eval measure those of ``benchmarks`` that are its own.

    Prompts are in the chat template where the model has its own; a base, which was given one for
    the other benchmarks, is asked in plain text, as in the paper.

    Raises:
        ConfigError: the model is behind a server, or lm-eval is not installed.
    """
    from response_tuning.grade import open_lm_eval
    from response_tuning.workflows.lm_eval import run_core

    wanted = [name for name in benchmarks if open_lm_eval(name)]
    if not wanted:
        return
    if not cell.local:
        raise ConfigError(
            f"{wanted[0]}: needs the probabilities of a model that is loaded here: engine 'hf', "
            f"not '{cell.generate.engine}'"
        )
    chat = cell.tuned or templates.is_native(cell.generate.template or cell.finetune.template)
    run_core(engine_config(cell, folder), wanted, config, folder, console, chat=chat)


def engine_config(cell: Cell, folder: Path) -> "EngineConfig":
    """Return what loads or finds the cell's model."""
    from response_tuning.configs import EngineConfig

    untuned = cell.generate.template or cell.finetune.template
    own: dict[str, Any] = {
        "model": str(folder / "finetune") if cell.tuned else cell.finetune.base_model,
    }
    if cell.local:
        own |= {
            "template": None if cell.tuned else untuned,
            "revision": cell.finetune.base_revision,
            "device": cell.finetune.device,
            "tokens_per_batch": cell.generate.tokens_per_batch,
        }
    where = f"variant '{cell.variant}': generate.settings"
    return build(EngineConfig, own | cell.generate.settings.model_dump(exclude_unset=True), where)


def _identity(cell: Cell, settings: "EngineConfig") -> str | dict[str, Any]:
    from response_tuning.models.location import identity

    if cell.local:
        return identity(str(settings.model), settings.revision)
    return {"engine": cell.generate.engine, "model": settings.model, "server": settings.base_url}


def tune_and_ask(
    cell: Cell, experiment: Experiment, out: Path, console: "Console", *, retry_filtered: bool
) -> dict[str, float]:
    """Take one cell through stages 2 and 3, and return the seconds that each took."""
    from response_tuning.finetune import finetune

    folder = cell.folder(out)
    seconds = {}
    if cell.tuned:
        began = time.monotonic()
        finetune(cell.finetune, folder / DATA, folder / "finetune", console)
        seconds["finetune"] = round(time.monotonic() - began, 1)
    began = time.monotonic()
    answer(
        cell,
        experiment.benchmarks,
        experiment.grade,
        folder,
        console,
        retry_filtered=retry_filtered,
    )
    measure_core(cell, experiment.benchmarks, experiment.grade, folder, console)
    seconds["generate"] = round(time.monotonic() - began, 1)
    return seconds
