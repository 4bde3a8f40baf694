"""The command line: flags become a recipe, and ``pipeline`` does the rest."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from response_tuning import cli_data, cli_errors, cli_evaluation, cli_experiments
from response_tuning.cli_data import (
    InstructionColumn,
    KeepDuplicates,
    LocalCopy,
    MaxExamples,
    ResponseColumn,
    RetryFiltered,
    Revision,
    Seed,
    given,
)
from response_tuning.cli_experiments import Copies, Limit
from response_tuning.errors import ConfigError, ResponseTuningError, unused
from response_tuning.interrupts import ending_well
from response_tuning.redaction import redacted
from response_tuning.terminal import console, log_to_stderr, prepare_streams, printable

# Plain help: the decorated kind alone would cost a fifth of a second at every start.
app = typer.Typer(
    help="Response Tuning: a base language model becomes an assistant from responses alone.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_experiments.app)
app.add_typer(cli_evaluation.app)

Data = Annotated[
    str | None,
    typer.Option(help="A named dataset, a file, a folder of texts, or a hub dataset id."),
]
BaseModel = Annotated[str | None, typer.Option(help="Folder or hub id of the base model.")]
Objective = Annotated[str | None, typer.Option(help="What is learned; 'rtune list' names them.")]
Twin = Annotated[
    list[str] | None,
    typer.Option(help="Train on exactly the responses that this other objective can train on."),
]
Template = Annotated[str | None, typer.Option(help="Chat template; 'rtune list' names them.")]
Window = Annotated[int | None, typer.Option(help="Longest example in tokens.")]
MaxNewTokens = Annotated[int, typer.Option(help="Longest completion in tokens.")]
Temperature = Annotated[float, typer.Option(help="0 is greedy.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any other setting, such as data.split=test."),
]


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
    from response_tuning import pipeline
    from response_tuning.configs import DataConfig, FinetuneConfig
    from response_tuning.recipe import make_recipe

    flags = {
        "data": given(DataConfig, locals(), source=data),
        "finetune": given(FinetuneConfig, locals(), twins=tuple(twin or ()) or None),
    }
    if out is None and not dry_run:
        raise ConfigError("finetune needs --out DIR, the folder for the tuned model")
    whole = make_recipe(recipe, preset, flags, settings or [])
    if dry_run:
        pipeline.plan_finetune(whole, console())
        return
    assert out is not None
    pipeline.run_finetune(whole, out, console(), resume=resume)


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
    from response_tuning import pipeline
    from response_tuning.configs import DataConfig, FinetuneConfig
    from response_tuning.recipe import make_recipe

    if html is not None:
        unused("--jsonl prints every row, and writes no page", html=html if jsonl else None)
    if (Path(what) / "manifest.json").exists():
        shown = {"what", "rows", "html", "jsonl"}
        own = {name: value for name, value in flags.items() if name not in shown}
        unused("a run has its own settings", set=own.pop("settings"), **own)
        pipeline.show_run(Path(what), console(), rows=rows, html=html, jsonl=jsonl)
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
    pipeline.show_file(
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
    from response_tuning import pipeline
    from response_tuning.artifacts import Sampling
    from response_tuning.configs import GradeConfig, build
    from response_tuning.generate import EngineConfig

    config = given(EngineConfig, locals())
    grading = build(GradeConfig, given(GradeConfig, locals()), "rtune generate")
    drawn = {"temperature": temperature, "top_p": top_p, "seed": seed, "stop": tuple(stop or ())}
    sampling = build(Sampling, {"max_new_tokens": max_new_tokens, **drawn}, "rtune generate")
    failed = pipeline.run_generate(
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
    from response_tuning.configs import build
    from response_tuning.generate.chat import run_chat

    sampling = {"max_new_tokens": max_new_tokens, "temperature": temperature}
    run_chat(model, template, build(Sampling, sampling, "rtune chat"))


@app.command("list")
def list_registered() -> None:
    """Print what can be asked for by name: datasets, objectives, benchmarks and so on."""
    from response_tuning.names import registered

    for kind, names in registered().items():
        print(f"{kind}: {', '.join(names)}")


@ending_well()
def main() -> None:
    """Run the command line; an error that the user can mend is one line and exit code 2."""
    prepare_streams()
    log_to_stderr()
    try:
        code = app(standalone_mode=False)
    except typer.Abort:
        sys.exit(130)
    except TyperException as error:
        code = error.exit_code
        said = cli_errors.usage(error)
    except ResponseTuningError as error:
        code, said = 2, cli_errors.ours(error, app, sys.argv[1:])
    except OSError as error:
        if error.errno is None:  # a library's own
            raise
        code, said = 2, cli_errors.system(error)
    else:
        sys.exit(code)
    print(printable(redacted(said)), file=sys.stderr)
    sys.exit(code)
