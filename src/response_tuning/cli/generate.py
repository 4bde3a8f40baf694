"""The command line of answers: ``generate`` and ``chat``."""

from pathlib import Path
from typing import Annotated

import typer

from response_tuning.cli.options import (
    Copies,
    Limit,
    MaxNewTokens,
    RetryFiltered,
    Temperature,
    given,
)
from response_tuning.terminal import console

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command()
def generate(
    prompts: Annotated[
        str, typer.Argument(help="JSONL, JSON, CSV or Parquet file of prompts, or a benchmark.")
    ],
    out: Annotated[Path, typer.Option(help="JSONL file for the completions.")],
    engine: Annotated[str, typer.Option(help="hf, openai or scripted.")] = "hf",
    model: Annotated[
        str | None, typer.Option(help="Folder or hub id; with openai, a name on the server.")
    ] = None,
    base_url: Annotated[str | None, typer.Option(help="Address of an OpenAI server.")] = None,
    table: Annotated[Path | None, typer.Option(help="Answers of the scripted engine.")] = None,
    template: Annotated[
        str | None, typer.Option(help="Chat template of a model that has none.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Column that holds the prompt.")] = None,
    data: Copies = None,
    limit: Limit = None,
    max_new_tokens: MaxNewTokens = 2048,
    temperature: Temperature = 0.0,
    top_p: Annotated[float, typer.Option(help="Nucleus of the sampling.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends a completion.")] = None,
    tokens_per_batch: Annotated[
        int | None, typer.Option(help="hf: tokens through the model at once.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(help="openai: requests in flight.")] = None,
    timeout_s: Annotated[float | None, typer.Option(help="openai: seconds for a reply.")] = None,
    max_retries: Annotated[int | None, typer.Option(help="openai: repeats of a request.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="openai: environment variable that holds the key.")
    ] = None,
    retry_filtered: RetryFiltered = False,
) -> None:
    """Have a model answer a file of prompts; the same command again goes on where it stopped."""
    from response_tuning.artifacts import Sampling
    from response_tuning.configs import EngineConfig, GradeConfig
    from response_tuning.validation import build
    from response_tuning.workflows import generate

    config = given(EngineConfig, locals())
    grading = build(GradeConfig, given(GradeConfig, locals()), "rtune generate")
    drawn = {"temperature": temperature, "top_p": top_p, "seed": seed, "stop": tuple(stop or ())}
    sampling = build(Sampling, {"max_new_tokens": max_new_tokens, **drawn}, "rtune generate")
    failed = generate.run_generate(
        engine,
        build(EngineConfig, config, "rtune generate"),
        prompts,
        column,
        sampling,
        out,
        console(),
        grading,
        retry_filtered=retry_filtered,
    )
    if failed:
        raise typer.Exit(1)


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="Folder or hub id of a model or an adapter.")],
    template: Annotated[
        str | None, typer.Option(help="Chat template of a model that has none.")
    ] = None,
    max_new_tokens: MaxNewTokens = 2048,
    temperature: Temperature = 0.0,
) -> None:
    """Talk with a model; 'clear' forgets the conversation, 'exit' leaves."""
    from response_tuning.artifacts import Sampling
    from response_tuning.serve.chat import run_chat
    from response_tuning.validation import build

    sampling = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    run_chat(model, template, build(Sampling, sampling, "rtune chat"))
