"""Core capabilities: lm-eval runs the model itself, in this process; its results become scores.

The paper's preset (section 4.1, Table 12): MMLU, OpenBookQA, HellaSwag, ARC and PIQA without
examples, by the log-likelihood of the choices; GSM8K with eight, as turns of a conversation, by a
generated answer. These are the only benchmarks without completions of ``generate``.
"""

import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning import templates
from response_tuning.artifacts import (
    Message,
    Score,
    package_versions,
    read_json,
    write_json,
    write_jsonl,
)
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError, TemplateError
from response_tuning.folders import STAGE_MANIFEST, folder_state
from response_tuning.terminal import progress_bar, quiet_libraries

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.configs import EngineConfig
    from response_tuning.grade import LmEvalBenchmark
    from response_tuning.grade.lm_eval.model import HarnessModel
    from response_tuning.grade.sources import SourceRows


_ANY_TEMPLATE = "tulu"
"""For the loader, which needs one; without ``chat`` it is never used."""


def run_core(
    settings: "EngineConfig",
    benchmarks: Sequence[str],
    config: GradeConfig,
    out: Path,
    console: "Console",
    *,
    chat: bool,
) -> None:
    """Write ``out/grade/<benchmark>.jsonl`` of each core benchmark, unless it exists already.

    With ``chat``, prompts are in the template that ``settings`` name, or else the model's own;
    without, they are plain text, as for a base model.

    Raises:
        ConfigError: lm-eval is not installed, or a benchmark is unknown.
        DataError: data cannot be found or used.
        ModelError: the model cannot be loaded, or its context is too short.
        EngineError: a batch does not fit into the GPU's memory.
    """
    from response_tuning.grade.lm_eval.tasks import read_data

    quiet_libraries()
    rules = check_core(benchmarks)
    data = {name: read_data(rule, config) for name, rule in rules.items()}
    inputs = {name: _inputs(settings, config, data[name], chat=chat) for name in benchmarks}
    missing = [name for name in benchmarks if not _is_measured(name, inputs[name], out)]
    # Decided before the model is loaded, which is the slow part.
    if not missing:
        console.print("core capabilities: already complete", highlight=False)
        return
    with _quiet():
        model = _load(settings, chat=chat)
    for name in missing:
        with progress_bar(name, console) as model.on_progress, _quiet():
            measured, notes = _evaluate(model, rules[name], data[name], config, chat=chat)
        write_jsonl(out / "grade" / f"{name}.jsonl", measured)
        manifest = out / "grade" / STAGE_MANIFEST
        recorded = read_json(manifest) if manifest.exists() else {}
        write_json(manifest, recorded | {name: inputs[name] | notes})
        _print(name, measured, notes, console)


def check_core(benchmarks: Sequence[str]) -> "dict[str, LmEvalBenchmark]":
    """Return the benchmarks by name; refuse those that cannot run here, before anything is read.

    Raises:
        ConfigError: lm-eval is not installed, or measures no such benchmark.
    """
    from response_tuning.grade import open_lm_eval

    rules = {}
    for name in benchmarks:
        rule = open_lm_eval(name)
        if rule is None:
            raise ConfigError(f"{name}: not a benchmark of lm-eval")
        rules[name] = rule
    if benchmarks and find_spec("lm_eval") is None:
        raise ConfigError(
            "core capabilities are measured by lm-eval: pip install 'response-tuning[lm-eval]'"
        )
    return rules


def _inputs(
    settings: "EngineConfig", config: GradeConfig, data: Mapping[str, "SourceRows"], *, chat: bool
) -> dict[str, Any]:
    """Return all that decides the scores of a benchmark."""
    from response_tuning.models.location import identity

    return {
        "rules": package_versions()["response-tuning"],
        "lm_eval": metadata.version("lm_eval"),
        "model": identity(str(settings.model), settings.revision),
        "template": templates.identity(settings.template or templates.NATIVE) if chat else None,
        "limit": config.limit,
        "data": {source: rows.origin for source, rows in data.items()},
    }


def _is_measured(name: str, inputs: Mapping[str, Any], out: Path) -> bool:
    folder = out / "grade"
    recorded = read_json(folder / STAGE_MANIFEST) if (folder / STAGE_MANIFEST).exists() else {}
    return folder_state(folder, recorded.get(name), inputs, [f"{name}.jsonl"]).whole


def _load(settings: "EngineConfig", *, chat: bool) -> "HarnessModel":
    from response_tuning.grade.lm_eval.model import HarnessModel
    from response_tuning.models.inference import load

    template = settings.template if chat else _ANY_TEMPLATE
    local = load(str(settings.model), template, settings.revision, settings.device)
    return HarnessModel(local, settings.tokens_per_batch)


def _evaluate(
    model: "HarnessModel",
    benchmark: "LmEvalBenchmark",
    data: Mapping[str, "SourceRows"],
    config: GradeConfig,
    *,
    chat: bool,
) -> tuple[list[Score], dict[str, Any]]:
    """Return the scores of a benchmark, and how they were measured."""
    from lm_eval.evaluator import evaluate

    from response_tuning.grade.lm_eval.tasks import METRIC_MEANINGS, chosen, load_tasks, scores

    loaded = load_tasks(benchmark, data)
    places = chosen(loaded, config.limit)
    tasks = {task: loaded[task] for task in places}
    generated = [task for task in tasks.values() if task.OUTPUT_TYPE == "generate_until"]
    for task in generated if chat else ():
        task.config.generation_kwargs["until"] += model.local.chat.stop_strings
    cut = model.cut
    result = evaluate(
        model,
        {"tasks": tasks},
        samples=places if config.limit else None,
        bootstrap_iters=0,  # the report has intervals of its own
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
    )
    measured = list(scores(benchmark, result["samples"]))
    notes = {
        "items": sum(map(len, places.values())),
        "requests_cut": model.cut - cut,
        "tasks": {name: task.VERSION for name, task in tasks.items()},
        "few_shot": max(result["n-shot"].values()),
        "metrics": {
            metric: METRIC_MEANINGS[metric]
            for metric in sorted({score.metric for score in measured})
        },
    }
    if generated:
        notes["max_new_tokens"] = model.max_gen_toks
    if chat and any(task.config.description for task in tasks.values()):
        notes["description"] = _place_of_description(model.local.chat)
    return measured, notes


def _place_of_description(chat: templates.Chat) -> str:
    """Return what lm-eval does with the sentence that introduces a task, such as MMLU's."""
    messages = [Message(role="system", content="About."), Message(role="user", content="Question.")]
    try:
        chat.prompt(messages)
    except TemplateError:
        return "left out: the template has no place for a system message"
    return "in the system message"


def _print(
    name: str, measured: Sequence[Score], notes: Mapping[str, Any], console: "Console"
) -> None:
    means = []
    for metric in notes["metrics"]:
        values = [(score.value, score.weight) for score in measured if score.metric == metric]
        total = sum(weight for _, weight in values)
        means.append(f"{metric} {sum(value * weight for value, weight in values) / total:.3f}")
    console.print(f"{name}: {', '.join(means)} (n {notes['items']:,})", highlight=False)
    if notes["requests_cut"]:
        console.print(
            f"{name}: {notes['requests_cut']:,} requests lost their beginning: the model's "
            "context is too short for them",
            highlight=False,
            soft_wrap=True,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence lm-eval's bars and notices; we print a bar of our own, and errors are raised."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)
