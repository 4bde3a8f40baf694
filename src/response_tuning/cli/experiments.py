"""The commands of whole experiments: run, demo, report, grade, eval."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from response_tuning.cli.flags import chosen, spread
from response_tuning.cli.grading import grade_config, grade_flags
from response_tuning.cli.jobs import same_command
from response_tuning.cli.miniature import miniature
from response_tuning.cli.options import (
    AskFlags,
    BenchmarkFlags,
    DryRunOption,
    EngineOption,
    ImportOption,
    JudgeFlags,
    MaxNewTokensOption,
    ReferenceOption,
    RetryFilteredOption,
    SetOption,
)
from response_tuning.errors import unused
from response_tuning.terminal import console

if TYPE_CHECKING:
    from response_tuning.workflows.experiment import Experiment

DEMO_JOBS = min(2, os.cpu_count() or 1)
"""Its cells use one thread each."""
JobsOption = Annotated[
    int, typer.Option(min=1, max=256, help="Processes that share the cells on this machine.")
]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(miniature, name="miniature")


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="YAML file with variants, seeds, benchmarks.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Write the run to this folder; default: runs/<name of the recipe>."),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CELL",
            help="Run only this cell, or all cells of this variant or value of the grid; repeat "
            "for several; example: rt/seed-0.",
        ),
    ] = None,
    settings: SetOption = None,
    jobs: JobsOption = 1,
    launcher: Annotated[
        str | None,
        typer.Option(
            help="Start a command for each cell: 'local', 'slurm' or 'ray'; default: run the cells "
            "in this process."
        ),
    ] = None,
    resources: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Give each cell these with --launcher; example: "
            "partition=a100,gpus=8,time=4:00:00,at_once=16.",
        ),
    ] = None,
    cells: Annotated[
        int | None, typer.Option(help="Confirm this number of cells; needed for more than 100.")
    ] = None,
    dry_run: DryRunOption = False,
    retry_filtered: RetryFilteredOption = False,
    modules: ImportOption = None,
) -> None:
    """Tune, ask and grade every variant at every seed, then report. Continues a stopped run.

    Several processes can share a run: start the command again, here or on another machine with the
    same disk, and each process takes the next free cell.
    """
    folder = out or Path("runs") / recipe.stem
    from response_tuning.workflows.experiment import read_experiment

    experiment = read_experiment(recipe, settings or [])
    if launcher is not None and not dry_run:
        from response_tuning.recipe import shipped

        unused("--launcher starts the cells", jobs=jobs if jobs > 1 else None)
        command = ["run", str(shipped(recipe).absolute()), "--out", str(folder.absolute())]
        command += [word for text in settings or () for word in ("--set", text)]
        command += [word for name in modules or () for word in ("--import", name)]
        command += ["--retry-filtered"] if retry_filtered else []
        _run_launched(experiment, folder, only or (), cells, launcher, resources or (), command)
        return
    unused("without --launcher, a cell gets all of this process", resources=resources)
    _run_or_plan(
        experiment,
        folder,
        only or (),
        jobs=jobs,
        dry_run=dry_run,
        retry_filtered=retry_filtered,
        confirmed=cells,
    )


@app.command()
def status(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Update until every cell is done; default: print once.")
    ] = False,
) -> None:
    """Show how far the cells of a run are and who has them."""
    from response_tuning.workflows.status import show_status

    show_status(run, console(), watch=watch)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Write the run to this folder.")] = Path("runs/demo"),
    settings: SetOption = None,
    jobs: JobsOption = DEMO_JOBS,
    dry_run: DryRunOption = False,
) -> None:
    """Run response tuning and its controls on the miniature. Takes a few minutes."""
    from response_tuning.miniature import DEMO
    from response_tuning.workflows.experiment import read_experiment

    _run_or_plan(read_experiment(DEMO, settings or []), out, jobs=jobs, dry_run=dry_run)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="The folder of a run.")],
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Write the tables in these formats, too: markdown, latex; default: markdown.",
        ),
    ] = None,
    figures: Annotated[
        str | None,
        typer.Option(help="Write the figures in these formats: svg, pdf, png; default: svg."),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(help="Show these metrics in tables and figures; example: strict,stopped."),
    ] = None,
    published: Annotated[
        str | None,
        typer.Option(
            help="Show these published tables beside the run; example: just-eval,core/acc."
        ),
    ] = None,
    modules: ImportOption = None,
) -> None:
    """Compare the graded variants of a run: tables, plots, one page."""
    from response_tuning.workflows import library

    given = {"formats": formats, "figures": figures, "metrics": metrics, "published": published}
    settings = {
        key: [part.strip() for part in text.split(",") if part.strip()]
        for key, text in given.items()
        if text is not None
    }
    if not library.report(run, settings, console=console()).rates_known:
        raise typer.Exit(1)


@app.command()
@spread
def grade(
    benchmark: Annotated[str, typer.Argument(help="A benchmark of 'rtune list'.")],
    completions: Annotated[Path, typer.Argument(help="What 'rtune generate BENCHMARK' wrote.")],
    out: Annotated[Path, typer.Option(help="Write the scores to this JSONL file.")],
    copies: BenchmarkFlags,
    judging: JudgeFlags,
    reference: ReferenceOption = None,
    settings: SetOption = None,
    retry_filtered: RetryFilteredOption = False,
    modules: ImportOption = None,
) -> None:
    """Score answers to a benchmark, by its rules or with a judge."""
    from response_tuning.workflows import library

    config = grade_config(copies, judging, reference, settings)
    graded = library.grade(
        benchmark, completions, out, config, retry_filtered=retry_filtered, console=console()
    )
    if not graded.rates_known:
        raise typer.Exit(1)


@app.command("eval")
@spread
def evaluate(
    model: Annotated[
        str, typer.Argument(help="A folder, a hub id, or with openai its server's name.")
    ],
    asked: AskFlags,
    copies: BenchmarkFlags,
    judging: JudgeFlags,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            help="Ask refusal, helpfulness, instructions, core, all, or one benchmark; repeat for "
            "several; default: refusal."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the run to this folder; default: runs/eval-<model>.")
    ] = None,
    engine: EngineOption = "hf",
    max_new_tokens: MaxNewTokensOption = 2048,
    reference: ReferenceOption = None,
    settings: SetOption = None,
    dry_run: DryRunOption = False,
    retry_filtered: RetryFilteredOption = False,
    modules: ImportOption = None,
) -> None:
    """Have one model answer benchmarks, grade its answers, report."""
    from response_tuning.workflows.suites import evaluation_of

    experiment = evaluation_of(
        model,
        suite or ["refusal"],
        grade_flags(copies, judging, reference),
        {
            "engine": engine,
            "template": asked.template,
            "max_new_tokens": max_new_tokens,
            "settings": chosen(base_url=asked.base_url, table=asked.table),
        },
        settings or [],
    )
    for note in experiment.notes:
        console().print(note, highlight=False, soft_wrap=True, markup=False)
    folder = out or Path("runs") / f"eval-{Path(model).name or 'model'}"
    _run_or_plan(experiment, folder, dry_run=dry_run, retry_filtered=retry_filtered)


def _run_launched(
    experiment: "Experiment",
    out: Path,
    only: Sequence[str],
    confirmed: int | None,
    launcher: str,
    resources: Sequence[str],
    command: Sequence[str],
) -> None:
    from response_tuning.cli import launchers
    from response_tuning.workflows.launch import run_launched
    from response_tuning.workflows.run import check_number

    check_number(experiment, only, confirmed)
    launch = launchers.launcher(launcher, command, resources, out)
    log_of = partial(launchers.log_of, out)
    if not run_launched(experiment, out, console(), launch, log_of, only):
        raise typer.Exit(1)


def _run_or_plan(
    experiment: "Experiment",
    out: Path,
    only: Sequence[str] = (),
    *,
    jobs: int = 1,
    dry_run: bool,
    retry_filtered: bool = False,
    confirmed: int | None = None,
) -> None:
    if dry_run:
        from response_tuning.workflows.plan import plan_experiment

        plan_experiment(experiment, console(), only, out=out, retry_filtered=retry_filtered)
        return
    from response_tuning.workflows.run import check_number, run_experiment

    check_number(experiment, only, confirmed)
    known = run_experiment(
        experiment,
        out,
        console(),
        only=only,
        retry_filtered=retry_filtered,
        others=partial(same_command, jobs - 1),
    )
    if not known:
        raise typer.Exit(1)
