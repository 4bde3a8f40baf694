"""The command line of tuning: ``finetune`` and ``show``."""

from pathlib import Path
from typing import Annotated

import typer

from response_tuning.cli.options import (
    BaseModel,
    Data,
    InstructionColumn,
    KeepDuplicates,
    LocalCopy,
    MaxExamples,
    Objective,
    ResponseColumn,
    Revision,
    Seed,
    Settings,
    Template,
    Twin,
    Window,
    given,
)
from response_tuning.errors import ConfigError, unused
from response_tuning.terminal import console

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.command()
def finetune(
    out: Annotated[Path | None, typer.Option(help="Folder for the tuned model.")] = None,
    base_model: BaseModel = None,
    data: Data = None,
    objective: Objective = None,
    twin: Twin = None,
    template: Template = None,
    preset: Annotated[
        str | None, typer.Option(help="Starting point: 'small' (default) or 'paper'.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="YAML file with sections 'data:' and 'finetune:'.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="full, lora or qlora.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the examples.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Stop after this many steps.")] = None,
    examples_per_step: Annotated[
        int | None, typer.Option(help="Examples in one optimiser step, over all processes.")
    ] = None,
    tokens_per_micro_batch: Annotated[
        str | None,
        typer.Option(help="Tokens through the model at once, or 'auto': memory, not result."),
    ] = None,
    window: Window = None,
    eval_fraction: Annotated[
        float | None, typer.Option(help="Share held out; its loss is reported, never used.")
    ] = None,
    save_steps: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    seed: Seed = None,
    random_init: Annotated[
        bool | None, typer.Option("--random-init", help="Control: fresh weights.")
    ] = None,
    merge: Annotated[
        bool | None, typer.Option("--merge", help="Merge the adapter into its base.")
    ] = None,
    report_to: Annotated[str | None, typer.Option(help="A tracker, such as tensorboard.")] = None,
    path: LocalCopy = None,
    revision: Revision = None,
    response_column: ResponseColumn = None,
    instruction_column: InstructionColumn = None,
    max_examples: MaxExamples = None,
    keep_duplicates: KeepDuplicates = None,
    settings: Settings = None,
    resume: Annotated[
        bool, typer.Option(help="Go on where a killed run stopped, or start over.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan and the first row; train nothing.")
    ] = False,
) -> None:
    """Tune a base model on responses, alone or with their instructions."""
    from response_tuning.configs import DataConfig, FinetuneConfig
    from response_tuning.recipe import make_recipe
    from response_tuning.workflows import finetune

    flags = {
        "data": given(DataConfig, locals(), source=data),
        "finetune": given(FinetuneConfig, locals(), twins=tuple(twin or ()) or None),
    }
    if out is None and not dry_run:
        raise ConfigError("finetune needs --out DIR, the folder for the tuned model")
    whole = make_recipe(recipe, preset, flags, settings or [])
    if dry_run:
        finetune.plan_finetune(whole, console())
        return
    assert out is not None
    finetune.run_finetune(whole, out, console(), resume=resume)


@app.command()
def show(
    what: Annotated[str, typer.Argument(metavar="FILE|RUN", help="A source, or a run's folder.")],
    base_model: BaseModel = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or hub id of a tokenizer, instead of a model.")
    ] = None,
    objective: Objective = None,
    twin: Twin = None,
    template: Template = None,
    preset: Annotated[str | None, typer.Option(help="As in 'rtune finetune'.")] = None,
    window: Window = None,
    rows: Annotated[int, typer.Option(min=1, help="How many rows to show.")] = 5,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page here.")] = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Print ids and labels, one object a row.")
    ] = False,
    seed: Seed = None,
    path: LocalCopy = None,
    revision: Revision = None,
    response_column: ResponseColumn = None,
    instruction_column: InstructionColumn = None,
    max_examples: MaxExamples = None,
    keep_duplicates: KeepDuplicates = None,
    settings: Settings = None,
) -> None:
    """Show which tokens carry loss, how long rows are, and what became of each."""
    flags = dict(locals())
    from response_tuning.configs import DataConfig, FinetuneConfig
    from response_tuning.recipe import make_recipe
    from response_tuning.workflows import show

    if html is not None:
        unused("--jsonl prints every row, and writes no page", html=html if jsonl else None)
    if (Path(what) / "manifest.json").exists():
        shown = {"what", "rows", "html", "jsonl"}
        own = {name: value for name, value in flags.items() if name not in shown}
        unused("a run has its own settings", set=own.pop("settings"), **own)
        show.show_run(Path(what), console(), rows=rows, html=html, jsonl=jsonl)
        return
    if base_model is not None:
        unused("--base-model has a tokenizer", tokenizer=tokenizer)
    if base_model is None and tokenizer is None:
        raise ConfigError("show needs --base-model or --tokenizer to know the tokens of a file")
    layers = {
        "data": given(DataConfig, flags, source=what),
        "finetune": given(
            FinetuneConfig,
            flags,
            base_model=base_model or tokenizer,
            twins=tuple(twin or ()) or None,
        ),
    }
    _check_shown(settings or [])
    whole = make_recipe(None, preset, layers, settings or [])
    show.show_file(
        whole.data,
        whole.finetune,
        console(),
        tokenizer_alone=base_model is None,
        rows=rows,
        html=html,
        jsonl=jsonl,
    )


_SHOWN = frozenset(
    {"base_model", "base_revision", "objective", "twins", "template", "window", "seed"}
    | {"train_on_final_newline"}
)
"""Settings of ``finetune`` that decide which tokens carry loss."""


def _check_shown(settings: list[str]) -> None:
    """Refuse settings of training, of which ``show`` shows nothing."""
    from response_tuning.configs import FinetuneConfig

    for text in settings:
        section, _, name = text.partition("=")[0].partition(".")
        if section == "finetune" and name in FinetuneConfig.model_fields.keys() - _SHOWN:
            raise ConfigError(
                f"--set finetune.{name} has no effect: show trains nothing; remove it"
            )
