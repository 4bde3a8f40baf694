"""The command that makes tokens ahead of training: ``rtune data tokenize``."""

from typing import Annotated

import typer

from response_tuning.cli.data_options import DataFlags
from response_tuning.cli.finetune import check_shown
from response_tuning.cli.flags import chosen, spread
from response_tuning.cli.options import (
    ImportOption,
    MaskFlags,
    PresetOption,
    ProcessesOption,
    SetOption,
    SourceArgument,
)
from response_tuning.errors import ConfigError
from response_tuning.terminal import console

app = typer.Typer(rich_markup_mode=None)


@app.command()
@spread
def tokenize(
    source: SourceArgument,
    out: Annotated[
        str,
        typer.Option(
            help="Write the tokens to this folder, or to an address such as s3://bucket/tokens."
        ),
    ],
    mask: MaskFlags,
    reading: DataFlags,
    preset: PresetOption = None,
    settings: SetOption = None,
    processes: ProcessesOption = 1,
    modules: ImportOption = None,
) -> None:
    """Write tokens once, for all runs with 'finetune --tokens'."""
    from response_tuning.recipe import make_recipe

    if mask.base_model is None:
        raise ConfigError("tokenize needs --base-model, whose tokenizer it uses")
    check_shown(settings or [], "it changes no token")
    layers = {
        "data": {**reading.given(), "source": source},
        "finetune": {**mask.settings(), **chosen(seed=reading.seed)},
    }
    whole = make_recipe(None, preset, layers, settings or [])
    from response_tuning.workflows.tokenize import run_tokenize

    run_tokenize(whole, out, console(), processes)
