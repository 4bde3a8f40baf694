"""The command line of names: ``list``."""

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_registered() -> None:
    """Print what can be asked for by name: datasets, objectives, benchmarks and so on."""
    from response_tuning.workflows.names import registered

    for kind, names in registered().items():
        print(f"{kind}: {', '.join(names)}")
