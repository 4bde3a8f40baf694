"""The command ``serve``."""

from pathlib import Path
from typing import Annotated

import typer

from response_tuning.cli.options import ImportOption
from response_tuning.terminal import console

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command()
def serve(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]MODEL ...",
            help="Folders or hub ids of models and adapters, .gguf files, or the folder of a run; "
            "example: tuned base=miniature.",
        ),
    ],
    template: Annotated[
        str | None,
        typer.Option(help="Chat template for models without one; example: tulu."),
    ] = None,
    host: Annotated[
        str,
        typer.Option(help="Listen on this address; any but this machine's needs --api-key-file."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Listen on this port; 0: any free one.")
    ] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="Require the key in this file from every client."),
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            help="Run models in 'vllm', 'llama.cpp' or 'transformers'; 'auto' takes the first of "
            "them that is there."
        ),
    ] = "auto",
    vllm: Annotated[
        Path | None,
        typer.Option(help="Python of the environment that has vLLM; example: vllm/bin/python."),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="vllm, llama.cpp: limit a conversation to this many tokens; default: the model's "
            "own limit, in llama.cpp at most 8192.",
        ),
    ] = None,
    modules: ImportOption = None,
) -> None:
    """Serve models to OpenAI-compatible clients."""
    from response_tuning.workflows.serve_models import ServeSettings, run_serve

    settings = ServeSettings(models, template, host, port, api_key_file, backend, vllm, context)
    run_serve(settings, console())
