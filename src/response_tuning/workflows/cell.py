"""A cell goes through its stages: data, a tuned model, answers, grades.

    <cell>/generate/<benchmark>.jsonl    <cell>/grade/<benchmark>.jsonl

The folder of a cell holds all that its process writes, its journals too, so that processes on
different cells share nothing. Answers are on disk before anything judges them, and so is each reply
of a judge.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning import templates
from response_tuning.artifacts import (
    Completion,
    Sampling,
    digest,
    read_jsonl,
    write_json,
    write_jsonl,
)
from response_tuning.configs import GenerateConfig, GradeConfig
from response_tuning.errors import ConfigError, EngineError
from response_tuning.folders import STAGE_MANIFEST
from response_tuning.journals import Journal
from response_tuning.validation import build
from response_tuning.workflows.data import DATA
from response_tuning.workflows.experiment import Cell, Experiment
from response_tuning.workflows.generate import Sampler, copy_completions, filtered_sentence
from response_tuning.workflows.judge import check_engine
from response_tuning.workflows.names import has_own_template
from response_tuning.workflows.recorded import has_answers

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.configs import EngineConfig
    from response_tuning.grade import Item
    from response_tuning.workflows.followers import Followers


COMPLETIONS_JOURNAL = "completions.journal"


def check_answering(cell: Cell, folder: Path) -> None:
    """Refuse settings of a cell's model that have no effect; see ``check_engine``."""
    config = engine_config(cell, folder)
    at_once = GenerateConfig.model_fields["tokens_per_batch"].default
    if not cell.local and cell.generate.tokens_per_batch != at_once:
        raise ConfigError(
            f"variant '{cell.variant}': generate.tokens_per_batch has no effect with engine "
            f"'{cell.generate.engine}'; remove it"
        )
    check_engine(cell.generate.engine, config)
    _check_rules(cell)


def _check_rules(cell: Cell) -> None:
    from response_tuning.grade import open_lm_eval

    measured = [name for name in cell.benchmarks if open_lm_eval(name)]
    if cell.generate.rules is not None and measured:
        raise ConfigError(
            f"variant '{cell.variant}': generate.rules has no effect on {measured[0]}, which "
            "lm-eval measures; name the variant's other benchmarks in its 'benchmarks'"
        )


def tune_and_answer(
    cell: Cell,
    experiment: Experiment,
    run: Path,
    console: "Console",
    followers: "Followers",
    *,
    retry_filtered: bool,
) -> dict[str, float]:
    """Take one cell through stages 2 and 3, and return the seconds that each took."""
    from response_tuning.finetune import finetune

    folder = cell.folder(run)
    seconds = {}
    followers.call(tune=cell.tuned)
    if cell.tuned:
        began = time.monotonic()
        finetune(cell.finetune, folder / DATA, folder / "finetune", console)
        seconds["finetune"] = round(time.monotonic() - began, 1)
    began = time.monotonic()
    benchmarks, config = cell.benchmarks, experiment.grade
    answer(cell, benchmarks, config, folder, console, retry_filtered=retry_filtered)
    measure_core(cell, benchmarks, config, folder, console)
    seconds["generate"] = round(time.monotonic() - began, 1)
    return seconds


def answer(
    cell: Cell,
    benchmarks: Sequence[str],
    config: GradeConfig,
    folder: Path,
    console: "Console",
    *,
    retry_filtered: bool = False,
) -> None:
    """Have the cell's model answer every benchmark outside lm-eval, unless it has already.

    An answer that a content filter withheld counts, and is asked for again with ``retry_filtered``.

    Raises:
        EngineError: some prompts got no answer; the same call asks them again.
    """
    from response_tuning.generate import open_engine
    from response_tuning.grade import open_benchmark, open_lm_eval

    by_words = [name for name in benchmarks if open_lm_eval(name) is None]
    rules = {name: open_benchmark(name, config) for name in by_words}
    items = {name: rule.items() for name, rule in rules.items()}
    if not items:
        return
    settings, sampling = engine_config(cell, folder), sampling_of(cell)
    inputs = _inputs(cell, settings, sampling, items)
    counts = {name: len(requests) for name, requests in items.items()}
    if has_answers(folder / "generate", inputs, counts) and not retry_filtered:
        console.print("answers: already complete", highlight=False)
        return
    engine = open_engine(cell.generate.engine, settings)
    sampler = Sampler(engine, sampling, console, retry_filtered)
    for name, requests in items.items():
        completions = _completions(sampler, name, requests, cell, folder)
        _write(name, rules[name], completions, cell, folder)
        if sentence := filtered_sentence(completions):
            console.print(f"{name}: {sentence}", highlight=False, soft_wrap=True)
    # Last: this file means that the answers to all benchmarks are whole.
    write_json(folder / "generate" / STAGE_MANIFEST, inputs)


def sampling_of(cell: Cell) -> Sampling:
    """Return how the cell's model answers."""
    config = cell.generate.model_dump(include={"max_new_tokens", "temperature", "top_p", "stop"})
    # Greedy answers do not depend on the seed, and a key without it is the same for all seeds.
    return Sampling(**config, seed=cell.seed if cell.generate.temperature else 0)


def _inputs(
    cell: Cell,
    settings: "EngineConfig",
    sampling: Sampling,
    items: "Mapping[str, Sequence[Item]]",
) -> dict[str, Any]:
    """Return all that decides a cell's answers."""
    return {
        "model": _identity(cell, settings),
        "template": settings.template and templates.identity(settings.template),
        "sampling": sampling.model_dump(mode="json"),
        "items": {
            name: digest(*(item.model_dump_json() for item in requests))
            for name, requests in items.items()
        },
        **({"rules": settings.rules.model_dump(mode="json")} if settings.rules else {}),
        **({"confidence": True} if settings.confidence else {}),
    }


def _completions(
    sampler: Sampler, name: str, requests: "Sequence[Item]", cell: Cell, folder: Path
) -> list[Completion]:
    """Return a completion for each item of a benchmark.

    Raises:
        EngineError: some got no answer; the journal keeps the others.
    """
    from response_tuning.generate.engine import key

    journal = folder / COMPLETIONS_JOURNAL
    wanted = {key(sampler.engine, request, sampler.sampling) for request in requests}
    copy_completions(_earlier_completions(name, cell, folder), journal, wanted)
    completions = list(sampler.complete(requests, journal, f"answers to {name}"))
    failed = [completion for completion in completions if completion.error is not None]
    if failed:
        raise EngineError(
            f"{len(failed)} of {len(completions)} prompts of {name} got no answer, the first "
            f"because: {failed[0].error}; the same command asks them again"
        )
    return completions


def _earlier_completions(name: str, cell: Cell, folder: Path) -> Iterator[Iterable[Completion]]:
    """Yield files outside the cell with completions that may answer its prompts.

    A greedy model that is not tuned answers the same at every seed. Only finished files of other
    seeds are read, which are whole: another process may be appending to their journals right now.
    """
    by_variant = folder.parent / COMPLETIONS_JOURNAL
    if by_variant.exists():  # earlier versions kept one journal for all seeds
        yield Journal(by_variant, Completion)
    if not cell.tuned and not cell.generate.temperature:
        for path in sorted(folder.parent.glob(f"seed-*/generate/{name}.jsonl")):
            yield read_jsonl(path, Completion)


def _write(
    name: str, rule: object, completions: Sequence[Completion], cell: Cell, folder: Path
) -> None:
    """Write the completions, and in a benchmark's own format where it has one."""
    from response_tuning.grade import Exporting

    path = folder / "generate" / f"{name}.jsonl"
    write_jsonl(path, completions)
    exported = rule.export(completions, cell.variant) if isinstance(rule, Exporting) else {}
    for suffix, content in exported.items():
        write_json(path.with_name(f"{name}.{suffix}"), content)


def measure_core(
    cell: Cell, benchmarks: Sequence[str], config: GradeConfig, folder: Path, console: "Console"
) -> None:
    """Have lm-eval measure its tasks among ``benchmarks``.

    A tuned model, or one with a chat template of its own, gets prompts in that template. A base
    model, which has none or borrows one for the other benchmarks, gets plain text, as in the paper.

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
    chat = cell.tuned or has_own_template(cell)
    run_core(engine_config(cell, folder), wanted, config, folder, console, chat=chat)


def engine_config(cell: Cell, folder: Path) -> "EngineConfig":
    """Return what loads or finds the cell's model."""
    from response_tuning.configs import EngineConfig

    untuned = cell.generate.template or cell.finetune.template
    own: dict[str, Any] = {
        "model": str(folder / "finetune") if cell.tuned else cell.finetune.base_model,
    }
    # A server has its own model, device and template; only a local engine loads ours.
    if cell.local:
        own |= {
            "template": None if cell.tuned else untuned,
            "revision": cell.finetune.base_revision,
            "device": cell.finetune.device,
            "tokens_per_batch": cell.generate.tokens_per_batch,
        }
    if cell.generate.rules is not None:  # only a local engine takes them, and others refuse them
        own["rules"] = cell.generate.rules.model_dump()
    where = f"variant '{cell.variant}': generate.settings"
    return build(EngineConfig, own | cell.generate.settings.model_dump(exclude_unset=True), where)


def _identity(cell: Cell, settings: "EngineConfig") -> str | dict[str, Any]:
    from response_tuning.models.location import identity

    if cell.local:
        return identity(str(settings.model), settings.revision)
    return {"engine": cell.generate.engine, "model": settings.model, "server": settings.base_url}
