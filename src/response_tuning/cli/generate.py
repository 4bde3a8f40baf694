"""The commands of answers: ``generate``, ``chat`` and ``playground``."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from response_tuning.cli.flags import chosen, spread
from response_tuning.cli.options import (
    BenchmarkFlags,
    EngineFlags,
    EngineOption,
    ImportOption,
    MaxNewTokensOption,
    RetryFilteredOption,
    TemperatureOption,
)
from response_tuning.terminal import console, write

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command()
@spread
def generate(
    prompts: Annotated[
        str,
        typer.Argument(
            help="JSONL, JSON, CSV or Parquet file of prompts, or a benchmark of 'rtune list'."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Write the completions to this JSONL file.")],
    asked: EngineFlags,
    benchmark: BenchmarkFlags,
    engine: EngineOption = "hf",
    column: Annotated[
        str | None,
        typer.Option(help="Read prompts from this column; default: found by its usual names."),
    ] = None,
    max_new_tokens: MaxNewTokensOption = 2048,
    temperature: TemperatureOption = 0.0,
    top_p: Annotated[
        float, typer.Option(help="Sample from the smallest set of tokens with this probability.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed the sampling with this.")] = 0,
    stop: Annotated[
        list[str] | None,
        typer.Option(help="End a completion at this text; repeat for several; default: none."),
    ] = None,
    confidence: Annotated[
        bool | None,
        typer.Option("--confidence", help="hf: record how sure each answer is; default: off."),
    ] = None,
    abstain_below: Annotated[
        float | None,
        typer.Option(
            help="hf: decline where the answer's mean log-likelihood is lower; example: -0.2, from "
            "a report's abstention.csv; default: never."
        ),
    ] = None,
    abstain_risk: Annotated[
        float | None,
        typer.Option(
            help="hf: decline so that at most this share of the given answers is wrong, which "
            "--graded must show (95 %); example: 0.1; default: never."
        ),
    ] = None,
    graded: Annotated[
        Path | None,
        typer.Option(
            help="With --abstain-risk: scores of this model's answers to a benchmark; example: "
            "RUN/rt/seed-0/grade/miniature-seen.jsonl."
        ),
    ] = None,
    retry_filtered: RetryFilteredOption = False,
    modules: ImportOption = None,
) -> None:
    """Have a model answer a file of prompts. The same command continues where it stopped."""
    if engine == "hf" and asked.model:
        console().print(f"loading {asked.model}", highlight=False, soft_wrap=True)
    from response_tuning.workflows import library

    generated = library.generate(
        prompts,
        out,
        engine=engine,
        column=column,
        retry_filtered=retry_filtered,
        abstain_below=abstain_below,
        abstain_risk=abstain_risk,
        graded=graded,
        console=console(),
        **asked.given(),
        **chosen(confidence=confidence),
        **benchmark.given(),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        stop=tuple(stop or ()),
    )
    if generated.errors:
        raise typer.Exit(1)


@app.command()
def chat(
    model: Annotated[str, typer.Argument(help="Folder or hub id of a model or an adapter.")],
    template: Annotated[
        str | None,
        typer.Option(help="Chat template for a model without one; example: tulu."),
    ] = None,
    max_new_tokens: MaxNewTokensOption = 2048,
    temperature: TemperatureOption = 0.0,
    modules: ImportOption = None,
) -> None:
    """Talk with a model. Type 'clear' to forget the conversation and 'exit' to leave."""
    # Piped input gets no prompt and no help, so that the output holds replies only.
    at_terminal = sys.stdin.isatty()
    if at_terminal:
        console().print(f"loading {model}", highlight=False, soft_wrap=True)
    from response_tuning.artifacts import Sampling
    from response_tuning.validation import build
    from response_tuning.workflows.serve import run_chat

    sampling = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    lines = _typed() if at_terminal else sys.stdin
    run_chat(model, template, build(Sampling, sampling, "rtune chat"), lines, explain=at_terminal)


@app.command()
@spread
def playground(
    benchmark: BenchmarkFlags,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[[NAME=]MODEL[@URL] ...]",
            help="Folders or hub ids of models and adapters, the folder of a run, or a server's "
            "name of a model with its address; example: rt=runs/rt gemma@http://127.0.0.1:8000/v1; "
            "default: runs/demo, or else the shipped miniature.",
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(help="Chat template for models without one; example: tulu."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Keep answers and votes in this folder.")] = Path(
        "runs/playground"
    ),
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Serve the page on this port; 0: any free one.")
    ] = 0,
    api_key_env: Annotated[
        str, typer.Option(help="Read the servers' key from this environment variable.")
    ] = "OPENAI_API_KEY",
    modules: ImportOption = None,
) -> None:
    """Compare models side by side in the browser."""
    from response_tuning.configs import GradeConfig
    from response_tuning.validation import build
    from response_tuning.workflows.playground import PlaygroundSettings, run_playground

    config = build(GradeConfig, benchmark.given(), "rtune playground")
    settings = PlaygroundSettings(models or (), template, out, config, api_key_env, port)
    run_playground(settings, console())


def _typed() -> Iterator[str]:
    while True:
        try:
            yield input("> ")
        except EOFError:
            write("\n")
            return
