"""The command line of whole experiments: run, grade, report, the demo, and the miniature's base."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from response_tuning.cli_data import RetryFiltered
from response_tuning.errors import ConfigError
from response_tuning.terminal import console

if TYPE_CHECKING:
    from response_tuning.configs import GradeConfig

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
miniature = typer.Typer(
    help="The embedded world and its base model.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(miniature, name="miniature")

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as finetune.epochs=2."),
]
Copies = Annotated[
    Path | None,
    typer.Option("--data", help="Folder with local copies of benchmarks (docs/benchmarks)."),
]
Judge = Annotated[
    str | None, typer.Option(help="offline (rules, for refusals alone), hf, openai or scripted.")
]
JudgeModel = Annotated[str | None, typer.Option(help="The judge: a folder, an id or a name.")]
JudgeUrl = Annotated[str | None, typer.Option(help="Address of the judge's OpenAI server.")]
JudgeTable = Annotated[Path | None, typer.Option(help="Verdicts of the scripted engine.")]
Reference = Annotated[
    str | None, typer.Option(help="Pairwise: the answers to compare with, as a file.")
]
Limit = Annotated[int | None, typer.Option(help="Only so many items of each benchmark.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check the recipe and print the plan; run nothing.")
]


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="YAML file with variants, seeds, benchmarks.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; by default runs/<name of the recipe>.")
    ] = None,
    settings: Settings = None,
    dry_run: DryRun = False,
    retry_filtered: RetryFiltered = False,
) -> None:
    """Tune, ask and grade every variant at every seed, and report; go on where it stopped."""
    folder = out or Path("runs") / recipe.stem
    _run(recipe, folder, settings or [], dry_run, retry_filtered=retry_filtered)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo"),
    settings: Settings = None,
    dry_run: DryRun = False,
) -> None:
    """Show response tuning beside its controls on the embedded miniature, in a few minutes."""
    from response_tuning.miniature import DEMO

    _run(DEMO, out, settings or [], dry_run)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
) -> None:
    """Compare the graded variants of a run again: tables, plots and one page."""
    from response_tuning import runs

    if not runs.report_run(run, console()):
        raise typer.Exit(1)


@app.command()
def grade(
    benchmark: Annotated[str, typer.Argument(help="'rtune list' names them.")],
    completions: Annotated[Path, typer.Argument(help="What 'rtune generate BENCHMARK' left.")],
    out: Annotated[Path, typer.Option(help="JSONL file for the scores.")],
    data: Copies = None,
    judge: Judge = None,
    judge_model: JudgeModel = None,
    judge_url: JudgeUrl = None,
    judge_table: JudgeTable = None,
    reference: Reference = None,
    limit: Limit = None,
    settings: Settings = None,
    retry_filtered: RetryFiltered = False,
) -> None:
    """Score a model's answers to a benchmark, by its rules or with a judge."""
    from response_tuning import pipeline

    config = grade_config(locals(), settings)
    known = pipeline.run_grade(
        benchmark, completions, out, config, console(), retry_filtered=retry_filtered
    )
    if not known:
        raise typer.Exit(1)


@app.command("eval")
def evaluate(
    model: Annotated[str, typer.Argument(help="Folder or hub id; with openai, its name there.")],
    suite: Annotated[
        list[str] | None,
        typer.Option(
            help="refusal (default), helpfulness, instructions, core, all, or a benchmark by its "
            "name; may be repeated."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; by default runs/eval-<model>.")
    ] = None,
    engine: Annotated[str, typer.Option(help="hf, openai or scripted.")] = "hf",
    base_url: Annotated[str | None, typer.Option(help="Address of an OpenAI server.")] = None,
    table: Annotated[Path | None, typer.Option(help="Answers of the scripted engine.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Chat template of a model that has none.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer in tokens.")] = 2048,
    data: Copies = None,
    judge: Judge = None,
    judge_model: JudgeModel = None,
    judge_url: JudgeUrl = None,
    judge_table: JudgeTable = None,
    reference: Reference = None,
    limit: Limit = None,
    settings: Settings = None,
    dry_run: DryRun = False,
    retry_filtered: RetryFiltered = False,
) -> None:
    """Have one model answer suites of benchmarks, grade its answers, and report."""
    from response_tuning import runs
    from response_tuning.evaluation import evaluation_of

    own, of_grading = _split(settings)
    experiment = evaluation_of(
        model,
        suite or ["refusal"],
        grade_config(locals(), of_grading),
        {
            "engine": engine,
            "template": template,
            "max_new_tokens": max_new_tokens,
            "settings": given_settings(base_url=base_url, table=table),
        },
        own,
    )
    for note in experiment.notes:
        console().print(note, highlight=False, soft_wrap=True, markup=False)
    if dry_run:
        runs.plan_experiment(experiment, console())
    else:
        folder = out or Path("runs") / f"eval-{Path(model).name or 'model'}"
        if not runs.run_experiment(experiment, folder, console(), retry_filtered=retry_filtered):
            raise typer.Exit(1)


@miniature.command()
def build(
    out: Annotated[Path, typer.Option(help="Folder for the base model.")],
    seed: Annotated[int, typer.Option(help="Seed of corpus, order and fresh weights.")] = 0,
    tokens: Annotated[int | None, typer.Option(help="Tokens to train on.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as mixture.any_role=0."),
    ] = None,
) -> None:
    """Pre-train a base model from nothing but a seed; the same command again goes on."""
    from response_tuning import pipeline

    sizes = [f"pretrain.tokens={tokens}"] if tokens is not None else []
    given = [f"pretrain.seed={seed}", *sizes, *(settings or [])]
    pipeline.build_miniature(given, out, console())


def grade_config(flags: Mapping[str, Any], settings: Sequence[str] | None) -> "GradeConfig":
    """Return how answers are graded, from a command's flags and its ``--set`` settings."""
    from response_tuning.configs import GradeConfig, build
    from response_tuning.experiments import laid_over

    judge = given_settings(
        model=flags["judge_model"], base_url=flags["judge_url"], table=flags["judge_table"]
    )
    content = {
        **given_settings(**{key: flags[key] for key in ("data", "reference", "limit")}),
        "judge": {**given_settings(engine=flags["judge"]), "settings": judge},
    }
    whole = laid_over({"grade": content}, settings or [])
    if others := whole.keys() - {"grade"}:
        raise ConfigError(f"--set {min(others)}...: expected grade.KEY=VALUE")
    return build(GradeConfig, whole["grade"], "grade")


def given_settings(**values: object) -> dict[str, Any]:
    """Return the settings that were given."""
    return {key: value for key, value in values.items() if value is not None}


def _split(settings: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Return the settings of other sections, and those of ``grade``."""
    of_grading = [text for text in settings or [] if text.startswith("grade.")]
    return [text for text in settings or [] if text not in of_grading], of_grading


def _run(
    recipe: Path, out: Path, settings: list[str], dry_run: bool, *, retry_filtered: bool = False
) -> None:
    from response_tuning import runs
    from response_tuning.experiments import read_experiment

    experiment = read_experiment(recipe, settings)
    if dry_run:
        runs.plan_experiment(experiment, console())
    elif not runs.run_experiment(experiment, out, console(), retry_filtered=retry_filtered):
        raise typer.Exit(1)
