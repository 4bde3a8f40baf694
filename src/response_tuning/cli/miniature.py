"""The commands of the miniature's base model."""

from pathlib import Path
from typing import Annotated

import typer

from response_tuning.terminal import console

miniature = typer.Typer(
    help="Build a base model of the embedded world.", no_args_is_help=True, rich_markup_mode=None
)


@miniature.command()
def build(
    out: Annotated[Path, typer.Option(help="Write the base model to this folder.")],
    recipe: Annotated[
        Path | None,
        typer.Argument(help="A YAML file of settings; 'bases:' in it names several bases."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            help="Seed the corpus, the order and the fresh weights with this; default: 0."
        ),
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(help="Train on this many tokens; default: as the embedded base.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change any setting; example: mixture.any_role=0."
        ),
    ] = None,
) -> None:
    """Pre-train a base model. The same command continues a stopped run."""
    from response_tuning.workflows import miniature

    flags = {"seed": seed, "tokens": tokens}
    given = [f"pretrain.{key}={value}" for key, value in flags.items() if value is not None]
    miniature.build_miniature([*given, *(settings or [])], out, console(), recipe)
