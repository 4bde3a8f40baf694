"""The five verbs as functions, for scripts: prepare, finetune, generate, grade, report.

They run the same workflows as the commands, with the same checks and locks, and return the paths
and the numbers that a command prints. A setting is a keyword with the name that it has in a recipe.
Every error that the caller can fix is a ``ResponseTuningError``.
"""

from collections import Counter
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from statistics import fmean
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import BaseModel

from response_tuning.artifacts import Completion, Sampling, Score, read_json, read_jsonl
from response_tuning.configs import DataConfig, EngineConfig, GradeConfig
from response_tuning.errors import ConfigError
from response_tuning.recipe import Recipe, make_recipe, merged
from response_tuning.registry import unknown
from response_tuning.validation import build
from response_tuning.workflows.keywords import in_keywords

if TYPE_CHECKING:
    from rich.console import Console


class Prepared(NamedTuple):
    """Training examples, and what was left out."""

    folder: Path
    file: Path
    """JSONL, one example a line."""
    examples: int
    rows: int
    """Rows that were read."""
    rows_kept: int
    """Rows with at least one example."""
    dropped: dict[str, int]
    """Reason -> rows or turns; ``dropped.jsonl`` lists them."""
    flagged: dict[str, int]
    """What was found in examples -> how many; ``flagged.jsonl`` lists them."""


class Tuned(NamedTuple):
    """A tuned model: a Hugging Face model folder."""

    folder: Path
    metrics: Path
    """JSONL, one optimizer step a line."""
    examples: int
    steps: int
    loss: float
    """Mean loss per supervised token of the last step."""
    held_out_loss: float | None
    """None without ``eval_fraction``."""


class Generated(NamedTuple):
    """The completions of one model."""

    file: Path
    """JSONL, one completion a line."""
    prompts: int
    errors: int
    """Prompts without an answer; the same call asks them again."""
    filtered: int
    """Answers that a content filter withheld."""


class Graded(NamedTuple):
    """The scores of one file of completions."""

    file: Path
    """JSONL, one score a line."""
    scores: int
    means: dict[str, float]
    """Metric -> weighted mean over its items."""
    items: dict[str, int]
    """Metric -> number of items that have it."""
    rates_known: bool
    """False if so many judgements were unreadable that the rates mean nothing."""


class Reported(NamedTuple):
    """The report of a run."""

    page: Path
    results: Path
    """CSV, one metric of one variant a line."""
    comparisons: Path
    """CSV, one paired difference a line."""
    rates_known: bool
    """False if so many judgements were unreadable that some rates mean nothing."""


@in_keywords()
def prepare(
    source: str | Path | DataConfig,
    out: str | Path,
    *,
    console: "Console | None" = None,
    **settings: object,
) -> Prepared:
    """Turn a source into training examples in the folder ``out``.

    Args:
        source: A named dataset, a file, a folder of texts, a hub dataset id, or all settings.
        out: The folder for the examples and the audit.
        console: Prints what the command prints; by default nothing is printed.
        settings: Settings of ``DataConfig``, such as ``max_examples=100``.

    Raises:
        ResponseTuningError: the source or a setting is unusable, or ``out`` is in use.
    """
    from response_tuning.workflows.data import run_prepare

    folder, shown = _path(out, "prepare: out"), _console(console)
    values = _data(source, "prepare: source") | _plain(settings)
    config = build(DataConfig, values, "prepare")
    run_prepare(config, str(folder), shown)
    audit = read_json(folder / "audit.json", "rows", "rows_kept", "examples", "dropped")
    return Prepared(
        folder=folder,
        file=folder / "examples.jsonl",
        examples=audit["examples"],
        rows=audit["rows"],
        rows_kept=audit["rows_kept"],
        dropped=audit["dropped"],
        flagged=audit.get("flagged", {}),
    )


@in_keywords()
def finetune(
    recipe: Recipe | str | Path | None = None,
    out: str | Path | None = None,
    *,
    data: str | Path | DataConfig | Mapping[str, Any] | None = None,
    preset: str | None = None,
    resume: bool = True,
    console: "Console | None" = None,
    **settings: object,
) -> Tuned:
    """Tune a base model on responses; the model folder is ``out``.

    The same call again continues a run that was stopped, and returns at once if it has finished.

    Args:
        recipe: A recipe, or the path of one; every other argument changes a setting of it.
        out: The folder for the tuned model.
        data: Where the examples come from: a source as in ``prepare``, or settings of it.
        preset: The settings to start from, 'small' (the default) or 'paper'.
        resume: False starts over.
        console: Prints what the command prints; by default nothing is printed.
        settings: Settings of ``FinetuneConfig``, such as ``base_model="BASE"``.

    Raises:
        ResponseTuningError: a setting, the data or the base model is unusable, or ``out`` holds
            another run or is in use.
    """
    from accelerate import PartialState

    from response_tuning.workflows.finetune import run_finetune

    if out is None:
        raise ConfigError("finetune needs out=..., the folder for the tuned model")
    layer: dict[str, dict[str, Any]] = {"finetune": _plain(settings)}
    layer["data"] = {} if data is None else _data(data, "finetune: data")
    folder = _path(out, "finetune: out")
    whole = _recipe(recipe, preset, layer)
    run_finetune(whole, folder, _console(console), resume=resume)
    PartialState().wait_for_everyone()  # under a launcher, the first process writes the manifest
    manifest = read_json(folder / "manifest.json", "steps", "data")
    metrics = folder / "metrics.jsonl"
    return Tuned(
        folder=folder,
        metrics=metrics,
        examples=manifest["data"]["examples"],
        steps=manifest["steps"],
        loss=_last_loss(metrics),
        held_out_loss=manifest.get("held_out_loss"),
    )


@in_keywords()
def generate(  # noqa: PLR0913 - the settings of one command
    prompts: str | Path,
    out: str | Path,
    model: str | Path | EngineConfig | None = None,
    *,
    engine: str = "hf",
    column: str | None = None,
    sampling: Sampling | Mapping[str, Any] | None = None,
    retry_filtered: bool = False,
    abstain_below: float | None = None,
    abstain_risk: float | None = None,
    graded: str | Path | None = None,
    console: "Console | None" = None,
    **settings: object,
) -> Generated:
    """Have a model answer a file of prompts, or a benchmark; completions go to the file ``out``.

    The same call again asks only for what ``<out>.journal`` does not hold yet.

    Args:
        prompts: A JSONL, JSON, CSV or Parquet file of prompts, or the name of a benchmark.
        out: The JSONL file for the completions.
        model: A folder, a hub id, a name on a server, or all settings of the engine.
        engine: 'hf', 'openai', 'scripted', or the engine of a plug-in.
        column: The column that holds the prompt; by default found by its usual names.
        sampling: How answers are drawn; by default greedy.
        retry_filtered: Ask again where a content filter withheld an answer.
        abstain_below: Decline where the answer's confidence is lower.
        abstain_risk: Decline so that at most this share of the given answers is wrong.
        graded: Scores of the same model's answers to a benchmark, which ``abstain_risk`` needs.
        console: Prints what the command prints; by default nothing is printed.
        settings: Settings of ``EngineConfig`` and of ``Sampling``, such as ``base_url`` and
            ``max_new_tokens``; of a benchmark, ``data`` and ``limit``.

    Raises:
        ResponseTuningError: a setting, the prompts or the model is unusable, or ``out`` is in use.
    """
    from response_tuning.workflows.abstention import Abstaining
    from response_tuning.workflows.generate import run_generate

    file = _path(out, "generate: out")
    asked = _settings(model, "model", "generate: model")
    drawn = {"max_new_tokens": 2048, **_settings(sampling, None, "generate: sampling")}
    if isinstance(sampling, Sampling):
        drawn = sampling.model_dump()
    benchmark: dict[str, Any] = {}
    sections: list[tuple[type[BaseModel], dict[str, Any]]] = [
        (EngineConfig, asked),
        (Sampling, drawn),
        (GradeConfig, benchmark),
    ]
    for name, value in _plain(settings).items():
        homes = [values for kind, values in sections if name in kind.model_fields]
        if not homes:
            known = [key for kind, _ in sections for key in kind.model_fields]
            raise unknown("setting of generate", name, known)
        homes[0][name] = value
    errors = run_generate(
        engine,
        build(EngineConfig, asked, "generate"),
        str(_path(prompts, "generate: prompts")),
        column,
        build(Sampling, drawn, "generate"),
        file,
        _console(console),
        build(GradeConfig, benchmark, "generate"),
        retry_filtered=retry_filtered,
        abstain=Abstaining(abstain_below, abstain_risk, Path(graded) if graded else None),
    )
    reasons = Counter(one.finish_reason for one in read_jsonl(file, Completion))
    return Generated(file, reasons.total(), errors, reasons["filtered"])


@in_keywords()
def grade(
    benchmark: str,
    completions: str | Path,
    out: str | Path,
    config: GradeConfig | None = None,
    *,
    retry_filtered: bool = False,
    console: "Console | None" = None,
    **settings: object,
) -> Graded:
    """Score a model's answers to a benchmark; the scores go to the file ``out``.

    Args:
        benchmark: The name of a benchmark.
        completions: What ``generate`` wrote for that benchmark.
        out: The JSONL file for the scores.
        config: How answers are graded; ``settings`` change it.
        retry_filtered: Ask the judge again where a content filter withheld its verdict.
        console: Prints what the command prints; by default nothing is printed.
        settings: Settings of ``GradeConfig``, such as ``judge={"engine": "openai", ...}``.

    Raises:
        ResponseTuningError: a setting or the completions are unusable, or ``out`` is in use.
    """
    from response_tuning.workflows.grade import run_grade

    content = merged(_settings(config, None, "grade: config"), _plain(settings))
    answers, file = _path(completions, "grade: completions"), _path(out, "grade: out")
    known = run_grade(
        benchmark,
        answers,
        file,
        build(GradeConfig, content, "grade"),
        _console(console),
        retry_filtered=retry_filtered,
    )
    metrics: dict[str, list[Score]] = {}
    for score in read_jsonl(file, Score):
        metrics.setdefault(score.metric, []).append(score)
    return Graded(
        file=file,
        scores=sum(map(len, metrics.values())),
        means={
            metric: fmean([one.value for one in scores], [one.weight for one in scores])
            for metric, scores in metrics.items()
        },
        items={metric: len(scores) for metric, scores in metrics.items()},
        rates_known=known,
    )


@in_keywords()
def report(
    run: str | Path,
    settings: Mapping[str, object] = MappingProxyType({}),
    *,
    console: "Console | None" = None,
) -> Reported:
    """Compare the graded variants of a run: tables, plots and one page, in ``run/report``.

    ``settings`` override those of the recipe's section ``report``, such as ``metrics``.

    Raises:
        ResponseTuningError: ``run`` is not a run, or is in use.
    """
    from response_tuning.workflows.report import RUN_MANIFEST, report_run

    path = _path(run, "report: run")
    if not (path / RUN_MANIFEST).exists():
        raise ConfigError(f"{path}: no run there; give the folder of an 'rtune run'")
    known = report_run(path, _console(console), _plain(settings))
    folder = path / "report"
    return Reported(
        folder / "report.html", folder / "results.csv", folder / "comparisons.csv", known
    )


def _recipe(
    recipe: Recipe | str | Path | None, preset: str | None, layer: dict[str, dict[str, Any]]
) -> Recipe:
    """Lay ``layer`` over a recipe: over the settings of an object, or over a file."""
    if not isinstance(recipe, Recipe):
        file = _path(recipe, "finetune: recipe") if recipe is not None else None
        return make_recipe(file, preset, layer, [])
    if preset is not None:
        raise ConfigError("preset has no effect: the recipe has every setting; remove it")
    return build(Recipe, merged(recipe.model_dump(), layer), "finetune")


def _data(source: object, where: str) -> dict[str, Any]:
    return _settings(source, "source", where)


def _settings(given: object, name: str | None, where: str) -> dict[str, Any]:
    """Return the settings of a config or a dict, or the one setting ``name`` that stands for it."""
    if given is None:
        return {}
    if name is not None and isinstance(given, str | Path):
        return {name: str(given)}
    if isinstance(given, Mapping):
        return _plain(given)
    if not isinstance(given, BaseModel):
        text = "a path or name, " if name else ""
        raise ConfigError(f"{where}: expected {text}a config or a dict (got {_shown(given)})")
    # Unset values are left out, so that "given by the user" means the same as in a recipe.
    return given.model_dump(exclude_unset=True)


def _path(given: object, where: str) -> Path:
    if not isinstance(given, str | PathLike):
        raise ConfigError(f"{where}: expected a path (got {_shown(given)})")
    return Path(given)


def _shown(given: object) -> str:
    return f"a {type(given).__name__}" if given is not None else "None"


def _plain(settings: Mapping[str, object]) -> dict[str, Any]:
    """Return settings as a recipe would hold them: a path as text."""
    plain: dict[str, Any] = {}
    for name, value in settings.items():
        inner = _plain(value) if isinstance(value, Mapping) else value
        plain[name] = str(inner) if isinstance(inner, Path) else inner
    return plain


def _last_loss(metrics: Path) -> float:
    import json

    last = metrics.read_text(encoding="utf-8").rstrip("\n").rpartition("\n")[2]
    return float(json.loads(last)["loss"])


def _console(console: "Console | None") -> "Console":
    from rich.console import Console

    return console or Console(quiet=True)
