"""The commands of judges and raters."""

import json as jsonlib
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from response_tuning.cli.flags import chosen, spread
from response_tuning.cli.grading import grade_config
from response_tuning.cli.options import (
    BenchmarkFlags,
    DeviceOption,
    ImportOption,
    JsonOption,
    JudgeFlags,
    RetryFilteredOption,
    SetOption,
)
from response_tuning.errors import ConfigError, unused
from response_tuning.terminal import console

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command("judge-check")
@spread
def judge_check(
    judging: JudgeFlags,
    sets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Public sets in the folder --data: xstest, harmbench, llmbar, pandalm."
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Check on your own JSONL file instead: prompt, completion and label (refusal or "
            "compliance) in each line."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Read the public sets from this folder (docs/how-to/check-a-judge)."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Use only this many rows per set; default: all.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the verdicts to this JSONL file too.")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(
            help="Write judge-check.json, which a report can include, to this folder; default: "
            "nowhere."
        ),
    ] = None,
    json: JsonOption = False,
    retry_filtered: RetryFilteredOption = False,
    settings: SetOption = None,
    modules: ImportOption = None,
) -> None:
    """Compare a judge with people's labels. The same command continues where it stopped."""
    from response_tuning.folders import locked, locked_file, page_at
    from response_tuning.workflows.judge_check import (
        CheckOptions,
        contract,
        print_check,
        run_judge_check,
        unread_sentences,
    )

    config = grade_config(BenchmarkFlags(data=data, limit=limit), judging, None, settings)
    if labels is not None:
        unused("--labels names the file to read", data=data)
    options = CheckOptions(tuple(sets or ()), labels, out, save, retry_filtered)
    to = console(stderr=json)
    with ExitStack() as locks:
        read = {"labels": labels, "config": config}
        if save is not None:
            locks.enter_context(locked(save, read))
        locks.enter_context(locked_file(out, read) if out is not None else page_at(None, read))
        check = run_judge_check(options, config, to)
    if json:  # nothing else goes to standard output
        print(jsonlib.dumps(contract(check)))
    else:
        print_check(check, to)
    too_many = unread_sentences(check)
    for sentence in too_many:
        to.print(sentence, style="red", highlight=False, soft_wrap=True)
    if too_many:
        raise typer.Exit(1)


@app.command("best-of")
@spread
def best_of(
    source: Annotated[
        Path,
        typer.Argument(
            help="A file of answers: instruction and response in each row, several per instruction."
        ),
    ],
    model: Annotated[str, typer.Option(help="The judge: a run, a folder or a hub id.")],
    out: Annotated[Path, typer.Option(help="Write grades, the best answers and a table here.")],
    sees: Annotated[
        str | None,
        typer.Option(help="Show the judge 'both', or the 'response' alone; default: both."),
    ] = None,
    form: Annotated[
        str | None,
        typer.Option(help="Prompt of the judge, as it was trained: full, brief; default: full."),
    ] = None,
    keep: Annotated[
        float | None,
        typer.Option(help="Also write this share of all answers, by grade; example: 0.3."),
    ] = None,
    decline_below: Annotated[
        float | None,
        typer.Option(
            help="Also write all rows with an abstention for each answer with a lower grade; "
            "example: 6.5, from an earlier table."
        ),
    ] = None,
    likelihood: Annotated[
        str | None,
        typer.Option(help="Model of the likelihood, beside the judge; default: the judge."),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Chat template of the judge; default: its own.")
    ] = None,
    likelihood_template: Annotated[
        str | None, typer.Option(help="Chat template of --likelihood; default: its own.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Grade answers with a judge, and choose the best ones."""
    from response_tuning.validation import build
    from response_tuning.workflows.best_of import BestOfConfig, run_best_of

    if likelihood is None:
        unused("no model is named with --likelihood", likelihood_template=likelihood_template)
    settings = chosen(sees=sees, form=form, keep=keep, decline_below=decline_below)
    settings["source"] = source
    settings["settings"] = {"model": model, "device": device, **chosen(template=template)}
    if likelihood is not None:
        own = chosen(template=likelihood_template)
        settings["likelihood"] = {"model": likelihood, "device": device, **own}
    run_best_of(build(BestOfConfig, settings, "rtune best-of"), out, console())


@app.command()
def rate(
    study: Annotated[Path, typer.Argument(help="Folder of the study; created if missing.")],
    answers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="Lay out a new study with a variant's completions; once per variant; example: "
            "rt=rt.jsonl.",
        ),
    ] = None,
    rater: Annotated[
        str | None, typer.Option(help="Serve the page for this person; each rater has a journal.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Show every other variant beside this one; default: the first."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Use only this many prompts, evenly spread; default: all."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Seed the order, and left and right, with this.")
    ] = 0,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Serve the page on this port; 0: any free one.")
    ] = 0,
    export: Annotated[
        Path | None,
        typer.Option(help="Write scores and agreement to this folder, and serve no page."),
    ] = None,
) -> None:
    """Rate answers in the browser, blind and side by side."""
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
