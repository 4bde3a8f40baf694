"""Options that several commands have, each defined once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from response_tuning.errors import ConfigError

if TYPE_CHECKING:
    from response_tuning.configs import Config, GradeConfig
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
Copies = Annotated[
    Path | None,
    typer.Option("--data", help="Folder with local copies of benchmarks (docs/benchmarks)."),
]
Judge = Annotated[
    str | None, typer.Option(help="offline (rules, for refusals alone), hf, openai or scripted.")
]
JudgeModel = Annotated[str | None, typer.Option(help="The judge: a folder, an id or a name.")]
JudgeUrl = Annotated[str | None, typer.Option(help="Address of the judge's OpenAI server.")]
JudgeTable = Annotated[Path | None, typer.Option(help="Verdicts of the scripted engine.")]
Reference = Annotated[
    str | None, typer.Option(help="Pairwise: the answers to compare with, as a file.")
]
Limit = Annotated[int | None, typer.Option(help="Only so many items of each benchmark.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check the recipe and print the plan; run nothing.")
]


def grade_config(flags: Mapping[str, Any], settings: Sequence[str] | None) -> "GradeConfig":
    """Return how answers are graded, from a command's flags and its ``--set`` settings."""
    from response_tuning.configs import GradeConfig
    from response_tuning.recipe import read_layers

    layers = read_layers(None, {"grade": grade_flags(flags)}, settings or [])
    if others := layers.content.keys() - {"grade"}:
        raise ConfigError(f"--set {min(others)}...: expected grade.KEY=VALUE")
    return layers.build(GradeConfig, ["grade"])


def grade_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the section ``grade`` that a command's flags stand for."""
    judge = given_settings(
        model=flags["judge_model"], base_url=flags["judge_url"], table=flags["judge_table"]
    )
    return {
        **given_settings(**{key: flags[key] for key in ("data", "reference", "limit")}),
        "judge": {**given_settings(engine=flags["judge"]), "settings": judge},
    }


def given_settings(**values: object) -> dict[str, Any]:
    """Return the settings that were given."""
    return {key: value for key, value in values.items() if value is not None}


Device = Annotated[str, typer.Option(help="auto (the first GPU, if there is one) or cpu.")]
Source = Annotated[
    str, typer.Argument(help="A named dataset, a file, a folder of texts, or a hub dataset id.")
]
Out = Annotated[Path, typer.Option(help="Folder for the examples and the audit.")]
LocalCopy = Annotated[
    Path | None, typer.Option("--path", help="A local copy of a named dataset, in its format.")
]
Revision = Annotated[str | None, typer.Option(help="Hub revision of the data.")]
Split = Annotated[str | None, typer.Option(help="Split of a hub dataset or of a folder.")]
ResponseColumn = Annotated[str | None, typer.Option(help="Column that holds the response.")]
InstructionColumn = Annotated[str | None, typer.Option(help="Column that holds the instruction.")]
MaxExamples = Annotated[int | None, typer.Option(help="Use a random subset of this size.")]
KeepDuplicates = Annotated[bool | None, typer.Option(help="Keep exact duplicates.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything that is drawn.")]
Against = Annotated[
    list[str] | None,
    typer.Option(help="A benchmark, or a file of prompts, that no example may hold."),
]
Threshold = Annotated[
    float | None, typer.Option(help="Similarity from which an example holds a prompt.")
]
Remove = Annotated[bool | None, typer.Option("--remove", help="Drop such examples; else count.")]
Model = Annotated[
    str | None, typer.Option(help="Folder or hub id; with openai, a name on the server.")
]
BaseUrl = Annotated[str | None, typer.Option(help="Address of an OpenAI server.")]
Table = Annotated[Path | None, typer.Option(help="Answers of the scripted engine.")]
TokensPerBatch = Annotated[int | None, typer.Option(help="hf: tokens through the model at once.")]
Concurrency = Annotated[int | None, typer.Option(help="openai: requests in flight.")]
TimeoutS = Annotated[float | None, typer.Option(help="openai: seconds for a reply.")]
MaxRetries = Annotated[int | None, typer.Option(help="openai: repeats of a request.")]
ApiKeyEnv = Annotated[
    str | None, typer.Option(help="openai: environment variable that holds the key.")
]
RetryFiltered = Annotated[
    bool, typer.Option("--retry-filtered", help="Ask again what a content filter kept back.")
]


def given(
    kind: "type[Config]",
    arguments: dict[str, Any],
    **renamed: Any,  # noqa: ANN401 - flags of any type
) -> dict[str, Any]:
    """Return the flags that were given for ``kind``, whose fields bear the same names."""
    flags = {name: arguments[name] for name in kind.model_fields if name in arguments} | renamed
    return {name: value for name, value in flags.items() if value is not None}
