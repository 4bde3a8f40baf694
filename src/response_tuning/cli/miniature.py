"""The command line of the miniature's base model."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from response_tuning.terminal import console

if TYPE_CHECKING:
    pass


miniature = typer.Typer(
    help="The embedded world and its base model.", no_args_is_help=True, rich_markup_mode=None
)


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
    from response_tuning.workflows import miniature

    sizes = [f"pretrain.tokens={tokens}"] if tokens is not None else []
    given = [f"pretrain.seed={seed}", *sizes, *(settings or [])]
    miniature.build_miniature(given, out, console())
