"""The composition root: what each command does, stage by stage. Read this file first.

Stages do not import each other. They meet on disk, and here is where one's output becomes the
next one's input.
"""

import logging
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning import seals
from response_tuning.artifacts import (
    Request,
    Sampling,
    Score,
    digest,
    file_digest,
    read_json,
    read_jsonl,
    write_jsonl,
)
from response_tuning.configs import DataConfig, FinetuneConfig, GradeConfig, build
from response_tuning.errors import ConfigError, unused
from response_tuning.folders import alone_at, alone_in, page_at
from response_tuning.names import registered as registered
from response_tuning.recipe import Recipe
from response_tuning.registry import unknown
from response_tuning.terminal import printable, progress_bar, quiet_libraries

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.generate import EngineConfig

logger = logging.getLogger(__name__)

DATA = "data"
"""Sub-folder of a run that holds what the data stage left."""
_DATA = ("examples.jsonl", "dropped.jsonl", "flagged.jsonl", "audit.json")


def run_data(config: DataConfig, out: Path) -> None:
    """Turn a source into examples, unless ``out`` holds exactly that already.

    Raises:
        ConfigError: ``out`` belongs to a run on other data, or what the examples are to be
            decontaminated against is neither a benchmark nor a file.
    """
    from response_tuning.data import prepare

    config_digest = digest(config.model_dump_json())
    if _is_there(config, config_digest, out):
        return
    prompts = {name: _prompts(name, config) for name in config.decontamination.against}
    prepare(config, out, prompts)
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


def run_finetune(recipe: Recipe, out: Path, console: "Console", *, resume: bool = True) -> None:
    """Run stages 1 and 2: a source and a base model become a tuned model in ``out``.

    Raises:
        ConfigError: a name is unknown, ``out`` belongs to another run, or to one in progress.
    """
    from response_tuning.finetune import finetune
    from response_tuning.finetune.checks import check
    from response_tuning.finetune.folder import forget, nothing_of_a_refused_run
    from response_tuning.finetune.processes import first_process_first, is_first

    quiet_libraries()
    check_names(recipe.finetune)
    alone = alone_in(out, recipe.data, recipe.finetune)
    with alone, nothing_of_a_refused_run(out / DATA, out):
        check(recipe.finetune, out)
        if not resume and is_first():
            forget(out)
        with first_process_first(on_cpu=recipe.finetune.device == "cpu"):
            run_data(recipe.data, out / DATA)
        finetune(recipe.finetune, out / DATA, out, console)


def plan_finetune(recipe: Recipe, console: "Console") -> None:
    """Print what ``run_finetune`` would do and cost, and the first row; nothing is kept."""
    from response_tuning.finetune.base import fitted
    from response_tuning.finetune.plan import print_plan
    from response_tuning.finetune.run import read_examples

    quiet_libraries()
    check_names(recipe.finetune)
    with tempfile.TemporaryDirectory() as folder:
        run_data(recipe.data, Path(folder))
        config = fitted(recipe.finetune)
        print_plan(config, read_examples(Path(folder)), console)
        show_data(config, Path(folder), console, rows=1)


def show_data(
    config: FinetuneConfig,
    data: Path,
    console: "Console",
    *,
    rows: int = 5,
    html: Path | None = None,
    jsonl: bool = False,
) -> None:
    """Show what ``config`` trains on: in the terminal, as a page, or as one object a row."""
    from response_tuning.finetune import base, run, show
    from response_tuning.templates import Chat

    chat = Chat(base.load_tokenizer(config))
    entries = show.entries(run.rows(config, chat, run.read_examples(data)), data)
    if jsonl:
        for line in show.as_jsonl(entries):
            print(line)  # noqa: T201 - this is the output, not a message about it
        return
    view = show.overview(entries, data, rows)
    if html is None:
        show.print_overview(view, chat, console)
    else:
        show.write_html(view, chat, html, _title(config, data))
        console.print(f"wrote {html}", highlight=False, soft_wrap=True)


def _title(config: FinetuneConfig, data: Path) -> str:
    source = read_json(data / "audit.json", "source")["source"]
    return f"{config.objective}, {Path(source['name']).name}"


def show_file(
    data: DataConfig,
    config: FinetuneConfig,
    console: "Console",
    *,
    tokenizer_alone: bool = False,
    **how: "int | Path | bool | None",
) -> None:
    """Show what a source becomes under ``config``; nothing is kept.

    With ``tokenizer_alone`` there is no model to say how many positions a window may have.
    """
    from response_tuning.finetune.base import fitted

    quiet_libraries()
    if not tokenizer_alone:
        config = fitted(config)
    page = how.get("html")
    with (
        page_at(page if isinstance(page, Path) else None, data, config),
        tempfile.TemporaryDirectory() as folder,
    ):
        run_data(data, Path(folder))
        show_data(config, Path(folder), console, **how)  # type: ignore[arg-type]


def show_run(run: Path, console: "Console", **how: "int | Path | bool | None") -> None:
    """Show what a run trained on, with the tokenizer and the settings that it has.

    Raises:
        DataError: ``run`` holds no manifest.
    """
    quiet_libraries()
    settings = read_json(run / "manifest.json", "settings")["settings"]
    config = build(FinetuneConfig, settings, str(run / "manifest.json"))
    if (run / "tokenizer_config.json").exists():
        config = config.model_copy(update={"base_model": str(run), "template": "native"})
    data = run / DATA if (run / DATA).exists() else run.parent / DATA  # beside it in an experiment
    page = how.get("html")
    with page_at(page if isinstance(page, Path) else None, run):
        show_data(config, data, console, **how)  # type: ignore[arg-type]


def run_generate(  # noqa: PLR0913 - the settings of one command
    engine: str,
    config: "EngineConfig",
    prompts: str,
    column: str | None,
    sampling: Sampling,
    out: Path,
    console: "Console",
    grading: GradeConfig | None = None,
    *,
    retry_filtered: bool = False,
) -> int:
    """Run stage 3 on a file of prompts or on a benchmark; return how many got no answer.

    What a filter kept from an answer has one, and is asked again with ``retry_filtered``.

    Completions are kept in ``<out>.journal`` as they arrive, and ``out`` is written whole at the
    end: the same command again asks only what is not in the journal.

    Raises:
        ConfigError: ``out`` is a folder.
    """
    from response_tuning.data import read_prompts
    from response_tuning.evaluation import print_answers
    from response_tuning.generate import check_retry, generate, open_engine
    from response_tuning.grade import BENCHMARKS, check_effect, open_benchmark

    if not prompts.strip():
        raise ConfigError("the name of the prompts is empty; give a file, or a benchmark's name")
    check_retry([engine], retry_filtered=retry_filtered)
    is_benchmark = prompts in BENCHMARKS.names()
    grading = grading or GradeConfig()
    if is_benchmark:
        check_effect([prompts], grading, graded=False)
        unused(f"{prompts} is a benchmark, which says itself what is asked", column=column)
    else:
        unused("a file of prompts is asked as it is", data=grading.data, limit=grading.limit)
    if not sampling.temperature:
        changed = None if sampling.top_p == 1 else sampling.top_p
        unused("temperature 0 is greedy", top_p=changed, seed=sampling.seed or None)
    with alone_at(out, config, grading, None if is_benchmark else Path(prompts)) as journal:
        if is_benchmark:
            requests: list[Request] = [*open_benchmark(prompts, grading).items()]
        else:
            requests = list(read_prompts(Path(prompts), column))
        answering = open_engine(engine, config)
        with progress_bar("completions", console) as advance:
            said = generate(
                answering,
                requests,
                journal,
                sampling,
                progress=advance,
                retry_filtered=retry_filtered,
            )
        completions = list(said)
        write_jsonl(out, completions)
    return print_answers(out, completions, console)


def run_grade(
    benchmark: str,
    completions: Path,
    out: Path,
    config: GradeConfig,
    console: "Console",
    *,
    retry_filtered: bool = False,
) -> bool:
    """Run stage 4 on one file of completions, and print every metric.

    Returns whether so much could be read that its rates are known.
    """
    from response_tuning.evaluation import print_scores
    from response_tuning.grade import check_effect, grade
    from response_tuning.judges import Judge, check_retry

    check_effect([benchmark], config)
    check_retry(config.judge, retry_filtered=retry_filtered)
    with alone_at(out, completions, config) as journal:
        say = Judge(config.judge, console, retry_filtered=retry_filtered).say(journal, benchmark)
        count = grade(benchmark, completions, out, config, say)
    known = print_scores(list(read_jsonl(out, Score)), console)
    console.print(f"wrote {out}: {count:,} scores", highlight=False, soft_wrap=True)
    return known


def build_miniature(settings: Sequence[str], out: Path, console: "Console") -> None:
    """Build a base model of the miniature's world.

    Raises:
        ConfigError: a setting is impossible.
    """
    from response_tuning.experiments import laid_over
    from response_tuning.miniature.build import BuildConfig, build_base

    quiet_libraries()
    config = build(BuildConfig, laid_over({}, settings), "rtune miniature build")
    console.print(
        f"{config.pretrain.tokens:,} tokens, {config.pretrain.steps:,} steps, on the CPU",
        highlight=False,
    )
    with alone_in(out), progress_bar("steps", console) as advance:
        loss = build_base(config, out, advance)
    console.print(
        f"wrote {out}: loss {loss:.3f} nats a token over the last steps",
        highlight=False,
        soft_wrap=True,
    )


def check_names(config: FinetuneConfig) -> None:
    """Refuse a name that nothing is registered under, before anything is read or written."""
    from response_tuning import templates
    from response_tuning.finetune.objectives import OBJECTIVES
    from response_tuning.miniature import resolved

    for name in (config.objective, *config.twins):
        OBJECTIVES.get(name)
    if {*config.twins} == {config.objective}:
        raise ConfigError(f"twins: '{config.objective}' is the objective itself; name another")
    if config.base_revision != "main" and Path(resolved(config.base_model)).is_dir():
        raise ConfigError(f"base_revision: {config.base_model} is a folder, which has none")
    templates.check(config.template)


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
