"""The command line of data: prepare, mix, refine, extract, inspect."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from response_tuning.cli.options import (
    Against,
    ApiKeyEnv,
    BaseUrl,
    Concurrency,
    InstructionColumn,
    KeepDuplicates,
    LocalCopy,
    MaxExamples,
    MaxRetries,
    Model,
    Out,
    Remove,
    ResponseColumn,
    RetryFiltered,
    Revision,
    Seed,
    Source,
    Split,
    Table,
    Threshold,
    TimeoutS,
    TokensPerBatch,
    given,
)
from response_tuning.errors import ConfigError, unused
from response_tuning.terminal import console


class _PrepareUnlessNamed(TyperGroup):
    """Takes a first word that is no command for the source of ``prepare``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's own click
        if args and args[0] not in (*self.commands, "--help"):
            args = ["prepare", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_PrepareUnlessNamed,
    help="Turn a pile of answers into training examples. 'rtune data SOURCE' prepares.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


Template = Annotated[str | None, typer.Option(help="Chat template of a model that has none.")]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Longest reply in tokens.")]
Temperature = Annotated[float, typer.Option(min=0, help="Of the first question; 0 is greedy.")]
On = Annotated[
    list[str] | None,
    typer.Option(
        metavar="OUTCOME=POLICY",
        help="keep the original, drop it, or retry, where the outcome is no-marker, empty, "
        "truncated or error (retry by default), refused, filtered or unchanged (keep).",
    ),
]
Retries = Annotated[int | None, typer.Option(help="How often 'retry' asks again.")]
RetryTemperature = Annotated[float | None, typer.Option(help="Temperature of asking again.")]
AfterRetries = Annotated[
    str | None, typer.Option(help="What 'retry' comes to in the end: keep or drop.")
]
PriceIn = Annotated[float | None, typer.Option(help="Dollars for a million tokens of prompts.")]
PriceOut = Annotated[float | None, typer.Option(help="Dollars for a million tokens of replies.")]


@app.command()
def prepare(
    source: Source,
    out: Out,
    path: LocalCopy = None,
    revision: Revision = None,
    split: Split = None,
    response_column: ResponseColumn = None,
    instruction_column: InstructionColumn = None,
    max_examples: MaxExamples = None,
    keep_duplicates: KeepDuplicates = None,
    near_duplicates: Annotated[
        float | None, typer.Option(help="Drop a response this similar to an earlier one, 0 to 1.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer that counts for --min-tokens and --max-tokens.")
    ] = None,
    min_tokens: Annotated[int | None, typer.Option(help="Shortest response in tokens.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest response in tokens.")] = None,
    language: Annotated[
        str | None, typer.Option(help="Keep responses in this language, such as en.")
    ] = None,
    personal_data: Annotated[
        str | None, typer.Option(help="Addresses, telephone numbers, keys: keep, flag or drop.")
    ] = None,
    restatements: Annotated[
        str | None,
        typer.Option(help="Openings that repeat the instruction: keep, flag, strip or drop."),
    ] = None,
    against: Against = None,
    threshold: Threshold = None,
    remove: Remove = None,
    seed: Seed = None,
) -> None:
    """Turn a pile of answers into training examples, and say what was left out and why."""
    from response_tuning.configs import CurationConfig, DecontaminationConfig

    sections = {
        "curation": given(CurationConfig, locals()),
        "decontamination": given(DecontaminationConfig, locals()),
    }
    _prepare(locals(), sections, out, "rtune data prepare")


@app.command()
def mix(
    source: Annotated[str, typer.Argument(metavar="BASE", help="As the source of 'prepare'.")],
    out: Out,
    refusals: Annotated[int, typer.Option(help="How many refusals; nested for one seed.")],
    mixture_source: Annotated[
        str | None, typer.Option(help="Where the refusals come from; a source as BASE is.")
    ] = None,
    mixture_path: Annotated[
        Path | None, typer.Option(help="A local copy of the refusals, if they are a named dataset.")
    ] = None,
    selector: Annotated[
        str | None, typer.Option(help="Which rows are refusals: phrases, paper-regex or all.")
    ] = None,
    path: LocalCopy = None,
    revision: Revision = None,
    split: Split = None,
    response_column: ResponseColumn = None,
    instruction_column: InstructionColumn = None,
    max_examples: MaxExamples = None,
    keep_duplicates: KeepDuplicates = None,
    against: Against = None,
    threshold: Threshold = None,
    remove: Remove = None,
    seed: Seed = None,
) -> None:
    """Mix refusals into examples, as the paper does for safety."""
    from response_tuning.configs import DecontaminationConfig

    if not refusals:
        unmixed = {"mixture_source": mixture_source, "mixture_path": mixture_path}
        unused("no refusals are mixed in", **unmixed, selector=selector)
    mixture = {"refusals": refusals, "source": mixture_source, "path": mixture_path}
    mixture |= {"selector": selector}
    sections = {
        "mixture": {name: value for name, value in mixture.items() if value is not None},
        "decontamination": given(DecontaminationConfig, locals()),
    }
    _prepare(locals(), sections, out, "rtune data mix")


@app.command()
def refine(
    source: Source,
    out: Annotated[Path, typer.Option(help="Folder for examples, counts, journal and page.")],
    engine: Annotated[str, typer.Option(help="hf, openai or scripted.")] = "hf",
    model: Model = None,
    base_url: BaseUrl = None,
    table: Table = None,
    template: Template = None,
    instruction_blind: Annotated[
        bool | None, typer.Option("--instruction-blind", help="Show the refiner responses alone.")
    ] = None,
    on: On = None,
    retries: Retries = None,
    retry_temperature: RetryTemperature = None,
    after_retries: AfterRetries = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    max_new_tokens: MaxNewTokens = 4096,
    temperature: Temperature = 0.0,
    tokens_per_batch: TokensPerBatch = None,
    concurrency: Concurrency = None,
    timeout_s: TimeoutS = None,
    max_retries: MaxRetries = None,
    retry_filtered: RetryFiltered = False,
    api_key_env: ApiKeyEnv = None,
    path: LocalCopy = None,
    revision: Revision = None,
    split: Split = None,
    response_column: ResponseColumn = None,
    instruction_column: InstructionColumn = None,
    max_examples: MaxExamples = None,
    keep_duplicates: KeepDuplicates = None,
    seed: Seed = None,
) -> None:
    """Have an LLM rewrite responses; the same command again goes on where it stopped."""
    flags = locals()
    from response_tuning.configs import DataConfig

    _rewrite(given(DataConfig, flags) | {"refinement": _refinement(flags)}, flags, "refine")


@app.command()
def extract(
    source: Annotated[
        str, typer.Argument(help="A folder of texts, a text or data file, or a hub dataset id.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for passages, examples and the audit.")],
    min_words: Annotated[int | None, typer.Option(help="Shortest passage.")] = None,
    max_words: Annotated[int | None, typer.Option(help="Longest passage.")] = None,
    max_passages: Annotated[
        int | None, typer.Option(help="Draw this many; nested for one seed.")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Column that holds the text.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="Rewrite in an assistant's voice, with hf, openai or scripted."),
    ] = None,
    model: Model = None,
    base_url: BaseUrl = None,
    table: Table = None,
    template: Template = None,
    on: On = None,
    retries: Retries = None,
    retry_temperature: RetryTemperature = None,
    after_retries: AfterRetries = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    max_new_tokens: MaxNewTokens = 4096,
    temperature: Temperature = 0.0,
    tokens_per_batch: TokensPerBatch = None,
    concurrency: Concurrency = None,
    timeout_s: TimeoutS = None,
    max_retries: MaxRetries = None,
    retry_filtered: RetryFiltered = False,
    api_key_env: ApiKeyEnv = None,
    revision: Revision = None,
    split: Split = None,
    seed: Seed = None,
) -> None:
    """Make training examples of the passages of plain documents, which nobody asked for."""
    flags = locals()
    from response_tuning.configs import DataConfig, ExtractionConfig

    config = given(DataConfig, flags, max_examples=max_passages)
    config["extraction"] = given(ExtractionConfig, flags)
    if engine is not None:
        config["refinement"] = _refinement(flags)
    else:
        asking = [
            *("model", "base_url", "table", "template", "on", "retries", "retry_temperature"),
            *("after_retries", "price_in", "price_out", "tokens_per_batch", "concurrency"),
            *("timeout_s", "max_retries", "api_key_env", "retry_filtered"),
        ]
        unused("passages are rewritten only with --engine", **{key: flags[key] for key in asking})
    _rewrite(config, flags, "extract")


@app.command()
def inspect(
    source: Source,
    tokenizer: Annotated[
        str | None, typer.Option(help="Folder or hub id of a tokenizer, to count tokens.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained page here.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    path: LocalCopy = None,
    revision: Revision = None,
    split: Split = None,
    response_column: ResponseColumn = None,
    instruction_column: InstructionColumn = None,
) -> None:
    """Show what is in a source: lengths, languages, openings, refusals, duplicates."""
    from response_tuning.configs import DataConfig
    from response_tuning.validation import build
    from response_tuning.workflows import refine

    config = build(DataConfig, given(DataConfig, locals()), "rtune data inspect")
    refine.run_inspect(config, tokenizer, html, console(), json=json)


def _prepare(
    flags: dict[str, Any], sections: dict[str, dict[str, Any]], out: Path, where: str
) -> None:
    from response_tuning.configs import DataConfig
    from response_tuning.folders import locked
    from response_tuning.validation import build
    from response_tuning.workflows import data

    config = build(DataConfig, given(DataConfig, flags) | sections, where)
    with locked(out, config):
        data.run_data(config, out)
        data.print_audit(out, console())


def _rewrite(values: dict[str, Any], flags: dict[str, Any], name: str) -> None:
    from response_tuning.configs import DataConfig
    from response_tuning.validation import build
    from response_tuning.workflows import data

    config = build(DataConfig, values, f"rtune data {name}")
    retry_filtered = flags["retry_filtered"]
    if data.run_rewriting(config, flags["out"], console(), retry_filtered=retry_filtered):
        raise typer.Exit(1)


def _refinement(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the section of ``data`` that the flags of a refiner stand for."""
    from response_tuning.configs import EngineConfig, RefinementConfig

    sampling = {name: flags[name] for name in ("max_new_tokens", "temperature", "seed")}
    values = given(RefinementConfig, flags, policies=_policies(flags["on"] or []))
    warmer = flags["retry_temperature"]
    if flags["retries"] == 0:
        unused("--retries 0 asks nothing again", retry_temperature=warmer)
    if warmer is not None and warmer < flags["temperature"]:
        unused("--temperature is higher, and asking again is no colder", retry_temperature=warmer)
    values["sampling"] = {name: value for name, value in sampling.items() if value is not None}
    settings = given(EngineConfig, flags)
    settings.pop("revision", None)  # --revision is that of the data
    return values | {"settings": settings}


def _policies(texts: list[str]) -> dict[str, str]:
    from response_tuning.configs import POLICIES

    policies: dict[str, str] = {}
    for text in texts:
        outcome, _, policy = text.partition("=")
        if outcome not in POLICIES or policy not in ("keep", "drop", "retry"):
            raise ConfigError(
                f"--on {text}: expected OUTCOME=POLICY, such as no-marker=drop; outcomes are "
                f"{', '.join(POLICIES)}; policies are keep, drop, retry"
            )
        if outcome in policies:
            raise ConfigError(f"--on {text}: {outcome} has a policy already; remove one of the two")
        policies[outcome] = policy
    return policies
