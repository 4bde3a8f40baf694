"""The command ``export``."""

from pathlib import Path
from typing import Annotated

import typer

from response_tuning.cli.options import DryRunOption, ImportOption
from response_tuning.errors import ConfigError, unused
from response_tuning.terminal import console

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command()
def export(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="Folder of a tuned model, a cell of a run, or a hub id; example: tuned.",
        ),
    ],
    to: Annotated[
        str, typer.Option(help="Write 'gguf', 'ollama', 'safetensors' or, to upload, 'hub'.")
    ],
    out: Annotated[Path | None, typer.Option(help="Write the export to this new folder.")] = None,
    kind: Annotated[
        str | None,
        typer.Option("--type", help="GGUF: write f32, f16, bf16 or q8_0 weights; default: f16."),
    ] = None,
    converter: Annotated[
        Path | None,
        typer.Option(help="GGUF: llama.cpp's convert_hf_to_gguf.py; default: the one on PATH."),
    ] = None,
    install_converter: Annotated[
        bool,
        typer.Option(
            "--install-converter", help="GGUF: install the converter into rtune's cache first."
        ),
    ] = False,
    rebuild_tokenizer: Annotated[
        bool,
        typer.Option(
            "--rebuild-tokenizer",
            help="GGUF: make a missing tokenizer.model from tokenizer.json, if it decides it.",
        ),
    ] = False,
    proof: Annotated[
        bool, typer.Option(help="Compare tokens, prompts, stop and answers with the model.")
    ] = True,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Compare answers to this file of prompts; default: those of the run."),
    ] = None,
    answers: Annotated[int, typer.Option(min=1, help="Compare this many answers.")] = 200,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Compare answers of at most this many tokens.")
    ] = 64,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="Export the adapter alone; default: merged.")
    ] = False,
    repo: Annotated[
        str | None, typer.Option(help="hub: upload to this repository; example: me/tuned.")
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="hub: make the repository private.")
    ] = False,
    license_: Annotated[
        str | None,
        typer.Option("--license", help="Licence for the card; example: apache-2.0."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Hub id of the base for the card; default: as the run knows it."),
    ] = None,
    dry_run: DryRunOption = False,
    modules: ImportOption = None,
) -> None:
    """Export a tuned model, and prove that it is the same."""
    if out is None and not dry_run:
        raise ConfigError("export needs --out DIR, a new folder for the export")
    if not dry_run:  # whose output is the list of files
        console().print(f"loading {run}", highlight=False, soft_wrap=True)
    from response_tuning.workflows.export import Export, run_export

    asked = Export(
        model=run,
        to=to,
        out=out or Path(),
        kind=kind or "f16",
        converter=converter,
        install_converter=install_converter,
        rebuild_tokenizer=rebuild_tokenizer,
        prompts=prompts,
        proof=proof,
        answers=answers,
        max_new_tokens=max_new_tokens,
        adapter=adapter,
        repository=repo,
        private=private,
        licence=license_,
        base=base,
    )
    if not asked.is_gguf:
        unused(f"--to {to} writes no GGUF file", type=kind)
    run_export(asked, console(), dry_run=dry_run)
