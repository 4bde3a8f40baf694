"""The command line of whole experiments: run, grade, report, and the demo."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from response_tuning.cli.miniature import miniature
from response_tuning.cli.options import (
    Copies,
    DryRun,
    Judge,
    JudgeModel,
    JudgeTable,
    JudgeUrl,
    Limit,
    Reference,
    RetryFiltered,
    given_settings,
    grade_config,
    grade_flags,
)
from response_tuning.terminal import console

if TYPE_CHECKING:
    pass


app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(miniature, name="miniature")

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as finetune.epochs=2."),
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
    from response_tuning.workflows.run import report_run

    if not report_run(run, console()):
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
    from response_tuning.workflows import grade

    config = grade_config(locals(), settings)
    known = grade.run_grade(
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
    from response_tuning.workflows import run
    from response_tuning.workflows.suites import evaluation_of

    experiment = evaluation_of(
        model,
        suite or ["refusal"],
        grade_flags(locals()),
        {
            "engine": engine,
            "template": template,
            "max_new_tokens": max_new_tokens,
            "settings": given_settings(base_url=base_url, table=table),
        },
        settings or [],
    )
    for note in experiment.notes:
        console().print(note, highlight=False, soft_wrap=True, markup=False)
    if dry_run:
        run.plan_experiment(experiment, console())
    else:
        folder = out or Path("runs") / f"eval-{Path(model).name or 'model'}"
        if not run.run_experiment(experiment, folder, console(), retry_filtered=retry_filtered):
            raise typer.Exit(1)


def _run(
    recipe: Path, out: Path, settings: list[str], dry_run: bool, *, retry_filtered: bool = False
) -> None:
    from response_tuning.workflows import run
    from response_tuning.workflows.experiment import read_experiment

    experiment = read_experiment(recipe, settings)
    if dry_run:
        run.plan_experiment(experiment, console())
    elif not run.run_experiment(experiment, out, console(), retry_filtered=retry_filtered):
        raise typer.Exit(1)
