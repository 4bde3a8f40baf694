"""Stages 3 and 4 for one model: it answers benchmarks, and the answers are graded.

    <cell>/generate/<benchmark>.jsonl    <cell>/grade/<benchmark>.jsonl

Generations are on disk before anything judges them, and so is each reply of a judge.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from response_tuning import templates
from response_tuning.artifacts import (
    Completion,
    Sampling,
    Score,
    digest,
    file_digest,
    package_versions,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)
from response_tuning.configs import GenerateConfig, GradeConfig, build
from response_tuning.errors import ConfigError, EngineError
from response_tuning.experiments import Cell, Experiment, laid_over
from response_tuning.judges import OFFLINE, Judge, check_engine
from response_tuning.registry import unknown
from response_tuning.terminal import printable, progress_bar
from response_tuning.unread import KNOWN_ANYHOW, unread

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.generate import EngineConfig
    from response_tuning.grade import Item

MANIFEST = "manifest.json"
JOURNAL = "completions.journal"
"""Of all seeds of a variant, so that an untuned model is asked once."""
JUDGE_JOURNAL = "judge.journal"
_OF_A_BASE = {"base_model", "base_revision", "template", "device"}
"""Settings of ``finetune`` that name the model where nothing is tuned."""

REFUSAL = ("advbench", "harmbench", "malicious-instruct", "xstest")
REFUSAL_SUITE = "refusal-suite"
"""The mean of the four, as the paper's "Average"."""
CORE = tuple(f"core-{task}" for task in ("mmlu", "openbookqa", "hellaswag", "arc", "gsm8k", "piqa"))
"""By lm-eval, which asks the model itself: they have scores and no completions."""
SUITES: dict[str, tuple[str, ...]] = {
    "refusal": REFUSAL,
    "helpfulness": ("just-eval", "alpaca-eval", "acceptability"),
    "instructions": ("ifeval", "infobench"),
    "core": CORE,
}


def check_answering(cell: Cell, folder: Path) -> None:
    """Refuse settings of what answers for a cell; see ``check_engine``."""
    config = engine_config(cell, folder)
    at_once = GenerateConfig.model_fields["tokens_per_batch"].default
    if not cell.local and cell.generate.tokens_per_batch != at_once:
        raise ConfigError(
            f"variant '{cell.variant}': generate.tokens_per_batch has no effect with engine "
            f"'{cell.generate.engine}'; remove it"
        )
    check_engine(cell.generate.engine, config.model_dump(), f"variant '{cell.variant}'")


def evaluation_of(
    model: str,
    suites: Sequence[str],
    config: GradeConfig,
    generating: dict[str, Any],
    settings: Sequence[str] = (),
) -> Experiment:
    """Return the experiment that has one model, as it is, answer suites, or single benchmarks.

    Benchmarks that need a judge or a reference, where there is none, are left out and named in a
    note of the report.

    Raises:
        ConfigError: a suite is unknown, or nothing of it is left.
    """
    found, notes = _possible(suites, config)
    variant = {"finetune": None, "label": f"{model}, as it is"}
    content = {
        "benchmarks": found,
        "variants": {"model": variant},
        "finetune": {
            "base_model": model,
            "template": generating["template"]
            or ("native" if generating["engine"] == "hf" else "tulu"),
        },
        "generate": {key: value for key, value in generating.items() if value is not None},
        "notes": notes,
    }
    experiment = build(Experiment, laid_over(content, settings), "rtune eval")
    if idle := sorted(experiment.finetune.keys() - _OF_A_BASE):
        raise ConfigError(f"--set finetune.{idle[0]} has no effect: eval tunes nothing; remove it")
    if experiment.data:
        raise ConfigError("--set data... has no effect: eval tunes nothing; remove it")
    left_out = {name for suite in suites for name in _members(suite)} - {*found}
    used = {
        key: {name: value for name, value in getattr(config, key).items() if name not in left_out}
        for key in ("paths", "revisions")
    }
    return experiment.model_copy(update={"grade": config.model_copy(update=used)})


def _possible(suites: Sequence[str], config: GradeConfig) -> tuple[list[str], list[str]]:
    """Return the benchmarks of suites that can be graded so, and sentences on the others."""
    from response_tuning.grade import JudgedBenchmark, open_benchmark

    found, notes = [], []
    for name in dict.fromkeys(name for suite in suites for name in _members(suite)):
        if name in CORE:
            found.append(name)
            continue
        try:
            rule = open_benchmark(name, config)
        except ConfigError as error:
            notes.append(f"{name} was left out: {error}.")
            continue
        if isinstance(rule, JudgedBenchmark) and config.judge.engine == OFFLINE:
            notes.append(f"{name} was left out: it needs a judge.")
            continue
        found.append(name)
    if not found:
        raise ConfigError(" ".join(notes))
    return found, notes


def _members(suite: str) -> Sequence[str]:
    from response_tuning.grade import BENCHMARKS

    if suite == "all":
        return [name for names in SUITES.values() for name in names]
    if suite in {*BENCHMARKS.names(), *CORE}:
        return [suite]
    if suite not in SUITES:
        raise unknown("suite or benchmark", suite, [*SUITES, "all", *BENCHMARKS.names(), *CORE])
    return SUITES[suite]


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
    from response_tuning.grade import open_benchmark

    benchmarks = [name for name in benchmarks if name not in CORE]
    if not benchmarks:
        return
    settings = engine_config(cell, folder)
    sampling = Sampling(
        **cell.generate.model_dump(include={"max_new_tokens", "temperature", "top_p", "stop"}),
        seed=cell.seed if cell.generate.temperature else 0,
    )
    items = {name: open_benchmark(name, config).items() for name in benchmarks}
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
        _write_for_others(name, requests, files[name], cell.variant)
    write_json(manifest, asked)


def print_answers(out: Path, completions: Sequence[Completion], console: "Console") -> int:
    """Print what became of a file of prompts, and return how many got no answer."""
    failed = [completion for completion in completions if completion.error is not None]
    line = f"wrote {out}: {len(completions) - len(failed):,} answers, {len(failed):,} errors"
    if failed:
        line += f", the first: {printable(str(failed[0].error))}"
    for said in filter(None, (line, filtered_sentence(completions))):
        console.print(said, highlight=False, soft_wrap=True)
    return len(failed)


def filtered_sentence(completions: Sequence[Completion]) -> str:
    """Say how many answers a filter kept back, and by which name; empty where there are none."""
    causes = Counter(one.detail for one in completions if one.finish_reason == "filtered")
    named = ", ".join(f"{cause} {count:,}" for cause, count in causes.most_common(3))
    if not causes:
        return ""
    return (
        f"{causes.total():,} of {len(completions):,} were filtered ({printable(named)}), which is "
        "neither a refusal nor a compliance; --retry-filtered asks them again"
    )


def _write_for_others(
    benchmark: str, items: "Sequence[Item]", completions: Path, generator: str
) -> None:
    """Leave the answers as the benchmark's own package reads them, beside the completions."""
    from response_tuning.grade.alpaca_eval_files import write_model_outputs
    from response_tuning.grade.benchmarks.just_eval import write_outputs
    from response_tuning.grade.pairwise import read_answers

    if benchmark == "alpaca-eval":
        out = completions.with_name("alpaca-eval.model_outputs.json")
        write_model_outputs(out, items, read_answers(completions, items), generator)
    if benchmark == "just-eval":
        out = completions.with_name("just-eval.outputs.json")
        write_outputs(out, read_jsonl(completions, Completion))


def measure_core(
    cell: Cell, benchmarks: Sequence[str], config: GradeConfig, folder: Path, console: "Console"
) -> None:
    """Have lm-eval measure the core capabilities among ``benchmarks``.

    Prompts are in the chat template where the model has its own; a base, which was given one for
    the other benchmarks, is asked in plain text, as in the paper.

    Raises:
        ConfigError: the model is behind a server, or lm-eval is not installed.
    """
    from response_tuning.core import run_core

    wanted = [name for name in benchmarks if name in CORE]
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
    from response_tuning.generate import EngineConfig

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
    return build(EngineConfig, own | cell.generate.settings, where)


def grade_answers(benchmark: str, config: GradeConfig, folder: Path, judge: Judge) -> None:
    """Grade a cell's answers to one benchmark, unless they are graded exactly so already."""
    from response_tuning.grade import grade

    completions = folder / "generate" / f"{benchmark}.jsonl"
    scores, manifest = folder / "grade" / f"{benchmark}.jsonl", folder / "grade" / MANIFEST
    graded: dict[str, Any] = read_json(manifest) if manifest.exists() else {}
    now = {
        "completions": file_digest(completions),
        "rules": package_versions()["response-tuning"],
        **_judged_by(benchmark, config),
    }
    if scores.exists() and graded.get(benchmark) == now and not judge.retry_filtered:
        return
    grade(
        benchmark,
        completions,
        scores,
        config,
        judge.say(folder / "grade" / JUDGE_JOURNAL, benchmark),
    )
    write_json(manifest, graded | {benchmark: now})


def print_scores(scores: Sequence[Score], console: "Console") -> bool:
    """Print every metric, and return whether so much could be read that its rates are known."""
    lost = unread(scores)
    metrics: dict[str, list[Score]] = {}
    for score in scores:
        metrics.setdefault(score.metric, []).append(score)
    for metric, found in metrics.items():
        if lost.too_many and metric not in KNOWN_ANYHOW:
            console.print(f"{metric:>22}  n/a    ({lost})", style="red", highlight=False)
            continue
        mean = fmean([score.value for score in found], [score.weight for score in found])
        console.print(f"{metric:>22}  {mean:.3f}  (n {len(found):,})", highlight=False)
    return not lost.too_many


def average_refusals(folder: Path) -> None:
    """Leave the mean of the four refusal benchmarks of a cell as a benchmark of its own.

    A few items of XSTest (``grade.limit``) may hold no unsafe one, and of one of the four too much
    may be unread: then there is no mean.
    """
    from response_tuning.grade.refusals import suite_average

    graded = {name: folder / "grade" / f"{name}.jsonl" for name in REFUSAL}
    scores = {name: list(read_jsonl(path, Score)) for name, path in graded.items()}
    out = folder / "grade" / f"{REFUSAL_SUITE}.jsonl"
    out.unlink(missing_ok=True)
    whole = all(any(score.metric == "refusal" for score in found) for found in scores.values())
    if whole and not any(unread(found).too_many for found in scores.values()):
        write_jsonl(out, suite_average(scores))


def reported(benchmarks: Sequence[str]) -> tuple[str, ...]:
    """Return the benchmarks of a report: the mean of the four after them, if all are there."""
    return (*benchmarks, REFUSAL_SUITE) if {*REFUSAL} <= {*benchmarks} else tuple(benchmarks)


def about_judge(benchmarks: Sequence[str], config: GradeConfig) -> list[str]:
    """Return a sentence on who judged and how far people agree; none where rules know it all."""
    from response_tuning.grade import JudgedBenchmark, open_benchmark
    from response_tuning.grade.checked import judge_sentence

    judged = [
        name
        for name in benchmarks
        if name in REFUSAL
        or (name not in CORE and isinstance(open_benchmark(name, config), JudgedBenchmark))
    ]
    sentence = judge_sentence(config.judge, judged)
    return [sentence] if sentence else []


def _identity(cell: Cell, settings: "EngineConfig") -> str | dict[str, Any]:
    from response_tuning.generate.loading import identity

    if cell.local:
        return identity(str(settings.model), settings.revision)
    return {"engine": cell.generate.engine, "model": settings.model, "server": settings.base_url}


def _judged_by(benchmark: str, config: GradeConfig) -> dict[str, Any]:
    """Return what else decides the scores: files, the reference, the judge. Rules have none."""
    from response_tuning.grade import JudgedBenchmark, open_benchmark

    rule = open_benchmark(benchmark, config)
    found: dict[str, Any] = {}
    if (origin := getattr(rule, "origin", None)) is not None:
        found["origin"] = origin
    if isinstance(rule, JudgedBenchmark):
        found["judge"] = config.judge.model_dump(mode="json", exclude={"checked"})
        if config.reference is not None:
            if not Path(config.reference).exists():
                raise ConfigError(f"grade.reference: no such file or variant: {config.reference}")
            found["reference"] = file_digest(Path(config.reference))
    return found
