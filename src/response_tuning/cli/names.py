"""The command ``list``: every name that a command or a recipe takes."""

import json as jsonlib

import typer

from response_tuning.cli.options import ImportOption, JsonOption

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_names(json: JsonOption = False, modules: ImportOption = None) -> None:
    """List all names: datasets, objectives, benchmarks and others."""
    from response_tuning.workflows.names import loaded_plugins, registered

    names, plugins = registered(), loaded_plugins()
    if json:
        print(jsonlib.dumps(names | {"plugins": plugins}, indent=2))
        return
    for kind, listed in names.items():
        print(f"{kind}: {', '.join(listed)}")
    if plugins:
        print(f"plug-ins: {', '.join(f'{name} ({what})' for name, what in plugins.items())}")
