"""The commands of tuning: ``finetune`` and ``show``."""

from pathlib import Path
from typing import Annotated

import typer

from response_tuning.cli.data_options import DataFlags
from response_tuning.cli.flags import chosen, spread
from response_tuning.cli.options import (
    DataOption,
    DryRunOption,
    FinetuneFlags,
    HtmlOption,
    ImportOption,
    MaskFlags,
    PresetOption,
    SetOption,
    TokenizerOption,
)
from response_tuning.errors import ConfigError, unused
from response_tuning.terminal import console

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command()
@spread
def finetune(
    tuning: FinetuneFlags,
    reading: DataFlags,
    out: Annotated[Path | None, typer.Option(help="Write the tuned model to this folder.")] = None,
    data: DataOption = None,
    preset: PresetOption = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Read settings from this YAML file; 'rtune config' prints its keys."),
    ] = None,
    settings: SetOption = None,
    resume: Annotated[
        bool, typer.Option(help="Continue a run that was stopped, or start over.")
    ] = True,
    continue_from: Annotated[
        Path | None,
        typer.Option(
            help="Extend this finished run: start from its weights, with its settings and data "
            "where you give no others; --out is a new folder."
        ),
    ] = None,
    dry_run: DryRunOption = False,
    modules: ImportOption = None,
) -> None:
    """Tune a base model on responses, alone or with instructions."""
    from response_tuning.recipe import make_recipe

    if out is None and not dry_run:
        raise ConfigError("finetune needs --out DIR, the folder for the tuned model")
    flags = {
        "data": {**reading.given(), **chosen(source=data)},
        "finetune": {**tuning.settings(), **chosen(seed=reading.seed)},
    }
    earlier = None
    if continue_from is not None:
        unused("--continue-from has the settings of its run", recipe=recipe, preset=preset)
        if out is not None and out.resolve() == continue_from.resolve():
            raise ConfigError(f"--out {out} is the run to continue from; choose a new folder")
        from response_tuning.workflows.continuation import settings_of

        earlier = settings_of(continue_from)
    whole = make_recipe(recipe, preset, flags, settings or [], earlier)
    # Importing torch takes seconds, and so does reading a base.
    console().print(f"loading {whole.finetune.base_model}", highlight=False, soft_wrap=True)
    from response_tuning.workflows import finetune

    # A recipe, and the paper's preset, say for themselves what is held out.
    holds_out = recipe is None and preset != "paper"
    if out is None or dry_run:
        finetune.plan_finetune(whole, console(), holds_out=holds_out)
    else:
        finetune.run_finetune(whole, out, console(), resume=resume, holds_out=holds_out)


@app.command()
@spread
def show(
    what: Annotated[
        str, typer.Argument(metavar="SOURCE|RUN", help="A source, or the folder of a run.")
    ],
    mask: MaskFlags,
    reading: DataFlags,
    tokenizer: TokenizerOption = None,
    preset: PresetOption = None,
    rows: Annotated[int, typer.Option(min=1, help="Show this many rows.")] = 5,
    html: HtmlOption = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Print token ids and labels, one JSON object per row.")
    ] = False,
    settings: SetOption = None,
    modules: ImportOption = None,
) -> None:
    """Show which tokens carry loss and what happened to each row."""
    from response_tuning.recipe import make_recipe
    from response_tuning.workflows import show

    if html is not None:
        unused("--jsonl prints every row and writes no page", html=html if jsonl else None)
    if (run := show.model_folder(what)) is not None:
        _refuse_settings(mask, reading, tokenizer, preset, settings)
        show.show_run(run, console(), rows=rows, html=html, jsonl=jsonl)
        return
    if mask.base_model is not None:
        unused("--base-model has a tokenizer", tokenizer=tokenizer)
    if mask.base_model is None and tokenizer is None:
        raise ConfigError("show needs --base-model or --tokenizer to know the tokens of a file")
    check_shown(settings or [], "show trains nothing")
    base = mask.base_model or tokenizer
    layers = {
        "data": {**reading.given(), "source": what},
        "finetune": {**mask.settings(), **chosen(base_model=base, seed=reading.seed)},
    }
    whole = make_recipe(None, preset, layers, settings or [])
    show.show_file(
        whole.data,
        whole.finetune,
        console(),
        tokenizer_alone=mask.base_model is None,
        rows=rows,
        html=html,
        jsonl=jsonl,
    )


def _refuse_settings(
    mask: MaskFlags,
    reading: DataFlags,
    tokenizer: str | None,
    preset: str | None,
    settings: list[str] | None,
) -> None:
    """Refuse settings of a file, because a run was made with its own."""
    flags = {**mask.given(), **reading.given(), "tokenizer": tokenizer, "preset": preset}
    unused("a run has its own settings", set=settings or None, **flags)


_SHOWN = frozenset(
    {"base_model", "base_revision", "objective", "twins", "template", "window", "seed"}
    | {"train_on_final_newline", "objective_settings"}
)
"""Settings of ``finetune`` that decide which tokens carry loss."""


def check_shown(settings: list[str], why: str) -> None:
    """Refuse settings of training that change no token and no loss."""
    from response_tuning.configs import FinetuneConfig

    for text in settings:
        section, _, name = text.partition("=")[0].partition(".")
        if section == "finetune" and name in FinetuneConfig.model_fields.keys() - _SHOWN:
            raise ConfigError(f"--set finetune.{name} has no effect: {why}; remove it")
