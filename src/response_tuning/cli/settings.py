"""The command ``config``: every setting of a recipe."""

import json
from typing import Annotated

import typer

from response_tuning.cli.options import ImportOption

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command("config")
def print_settings(
    section: Annotated[
        str | None,
        typer.Argument(help="One section; example: finetune, data.curation; default: all."),
    ] = None,
    json_schema: Annotated[
        bool, typer.Option("--json-schema", help="Print a JSON schema of recipes, for editors.")
    ] = False,
    modules: ImportOption = None,
) -> None:
    """Print every setting with its type, default and help."""
    from response_tuning.workflows.settings import described, recipe_schema

    if json_schema:
        print(json.dumps(recipe_schema(section), indent=2))
        return
    for line in described(section):
        print(line)
