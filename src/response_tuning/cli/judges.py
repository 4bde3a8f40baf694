"""The command line of judges and raters."""

import json as jsonlib
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from response_tuning.cli.options import (
    Judge,
    JudgeModel,
    JudgeTable,
    JudgeUrl,
    RetryFiltered,
    grade_config,
)
from response_tuning.errors import ConfigError, unused
from response_tuning.terminal import console

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command("judge-check")
def judge_check(
    sets: Annotated[
        list[str] | None,
        typer.Argument(help="Public sets below --data: xstest, harmbench, llmbar, pandalm."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="In their place, a JSONL file of one's own: prompt, completion and label (refusal "
            "or compliance) in each line."
        ),
    ] = None,
    judge: Judge = None,
    judge_model: JudgeModel = None,
    judge_url: JudgeUrl = None,
    judge_table: JudgeTable = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with the public sets (docs/how-to/check-a-judge).")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Only so many rows of each set.")] = None,
    out: Annotated[Path | None, typer.Option(help="JSONL file for the verdicts.")] = None,
    save: Annotated[
        Path | None, typer.Option(help="Folder for judge-check.json, which goes with reports.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    retry_filtered: RetryFiltered = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any other setting, such as grade.judge.settings.concurrency=32.",
        ),
    ] = None,
) -> None:
    """Compare a judge with people's labels; the same command again goes on where it stopped."""
    from response_tuning.folders import locked, locked_file, page_at
    from response_tuning.workflows.judge_check import (
        Wanted,
        contract,
        print_check,
        run_judge_check,
        unread_sentences,
    )

    config = grade_config({**locals(), "reference": None}, settings)
    if labels is not None:
        unused("--labels is a file of its own", data=data)
    wanted = Wanted(tuple(sets or ()), labels, out, save, retry_filtered)
    to = console(stderr=json)
    with ExitStack() as held:
        read = {"labels": labels, "config": config}
        if save is not None:
            held.enter_context(locked(save, read))
        held.enter_context(locked_file(out, read) if out is not None else page_at(None, read))
        check = run_judge_check(wanted, config, to)
    if json:  # alone on standard output
        print(jsonlib.dumps(contract(check)))
    else:
        print_check(check, to)
    too_many = unread_sentences(check)
    for sentence in too_many:
        to.print(sentence, style="red", highlight=False, soft_wrap=True)
    if too_many:
        raise typer.Exit(1)


@app.command()
def rate(
    study: Annotated[Path, typer.Argument(help="Folder of the study; made if it is not there.")],
    answers: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="A variant's answers; once for each variant."),
    ] = None,
    rater: Annotated[str | None, typer.Option(help="Who rates; each has a journal.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="The variant beside which others are shown; the first.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many prompts, evenly spread.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order and of left and right.")] = 0,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the page; 0 is any that is free.")
    ] = 0,
    export: Annotated[
        Path | None, typer.Option(help="Write scores and agreement here; serve no page.")
    ] = None,
) -> None:
    """Have people rate answers, blind and side by side, on a page of this machine."""
    from response_tuning.workflows import rate

    if not answers:
        laid_out = {"reference": reference, "limit": limit, "seed": seed or None}
        unused("the study is laid out already, or --answers is missing", **laid_out)
    if export is not None:
        unused("--export serves no page", rater=rater, port=port or None)
    if rater is None:
        unused("a page is served only with --rater", port=port or None)
    if answers:
        rate.make_study(study, answers, reference, seed, limit)
    if export is not None:
        rate.export_rated(study, export, console())
    elif rater is not None:
        rate.rate(study, rater, port, console())
    elif not answers:
        raise ConfigError("rate needs --rater NAME to serve the page, or --export DIR")
