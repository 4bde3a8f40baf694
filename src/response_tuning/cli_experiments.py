"""The command line of whole experiments: run, grade, report, the demo, and the miniature's base."""

from pathlib import Path
from typing import Annotated

import typer

from response_tuning.terminal import console

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
miniature = typer.Typer(
    help="The embedded world and its base model.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(miniature, name="miniature")

Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as finetune.epochs=2."),
]
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
) -> None:
    """Tune, ask and grade every variant at every seed, and report; go on where it stopped."""
    _run(recipe, out or Path("runs") / recipe.stem, settings or [], dry_run)


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

    runs.report_run(run, console())


@app.command()
def grade(
    benchmark: Annotated[str, typer.Argument(help="'rtune list' names them.")],
    completions: Annotated[Path, typer.Argument(help="What 'rtune generate BENCHMARK' left.")],
    out: Annotated[Path, typer.Option(help="JSONL file for the scores.")],
) -> None:
    """Score a model's answers to a benchmark."""
    from response_tuning import pipeline

    pipeline.run_grade(benchmark, completions, out, console())


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


def _run(recipe: Path, out: Path, settings: list[str], dry_run: bool) -> None:
    from response_tuning import runs
    from response_tuning.experiments import read_experiment

    experiment = read_experiment(recipe, settings)
    if dry_run:
        runs.plan_experiment(experiment, console())
    else:
        runs.run_experiment(experiment, out, console())
