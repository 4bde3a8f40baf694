"""Every option that is a setting or that several commands have, each defined once.

A group holds the options that become the settings of one model in ``configs``: a field has the
name of its setting. The help names the setting's default; a test compares the two.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from response_tuning.cli.flags import FlagGroup

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A named dataset, a file, a folder of texts, or a hub dataset id; example: "
        "answers.jsonl.",
    ),
]
DataOption = Annotated[
    str | None,
    typer.Option(
        help="Read the examples from this named dataset, file, folder of texts, or hub dataset "
        "id; example: answers.jsonl."
    ),
]
ExamplesOutOption = Annotated[
    Path, typer.Option("--out", help="Write the examples and the audit to this folder.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change any setting; example: finetune.lora_r=8. 'rtune config' prints all.",
    ),
]
PresetOption = Annotated[
    str | None,
    typer.Option(
        help="Start from the settings of 'small' or 'paper'; default: small. 'paper' averages the "
        "loss over a step's tokens; its code did with --set finetune.examples_per_mean=8."
    ),
]
LocalCopyOption = Annotated[
    Path | None,
    typer.Option("--path", help="Read a named dataset from this copy of its published files."),
]
DeviceOption = Annotated[
    str, typer.Option(help="Compute on 'auto' (the first GPU, if there is one) or 'cpu'.")
]
MaxNewTokensOption = Annotated[int, typer.Option(help="Stop after this many new tokens.")]
TemperatureOption = Annotated[float, typer.Option(help="Sample at this temperature; 0 is greedy.")]
EngineOption = Annotated[
    str, typer.Option(help="Run the model with 'hf', 'openai', 'scripted' or a plug-in's engine.")
]
TokenizerOption = Annotated[
    str | None,
    typer.Option(help="Count tokens with this tokenizer: a folder or a hub id."),
]
ReferenceOption = Annotated[
    str | None,
    typer.Option(help="Pairwise benchmarks: compare with the answers in this file."),
]
ProcessesOption = Annotated[
    int,
    typer.Option(
        help="Prepare a large source with this many processes; 0: one for each processor."
    ),
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, print the plan and stop.")
]
RetryFilteredOption = Annotated[
    bool,
    typer.Option("--retry-filtered", help="Ask again where a content filter withheld an answer."),
]
HtmlOption = Annotated[Path | None, typer.Option(help="Write a self-contained page to this file.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

RevisionOption = Annotated[
    str | None, typer.Option(help="Read this hub revision of the data; default: main.")
]
SplitOption = Annotated[
    str | None,
    typer.Option(help="Read this split of a hub dataset or a folder; default: train."),
]
SeedOption = Annotated[
    int | None, typer.Option(help="Seed every random choice with this; default: 0.")
]


def _import(modules: list[str] | None) -> list[str] | None:
    from response_tuning.plugins import import_modules

    import_modules(modules or [], "--import")
    return modules


ImportOption = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE",
        callback=_import,
        help="Import a module that registers names of your own; example: tea_plugin. Runs its "
        "code.",
    ),
]


@dataclass(eq=False, repr=False)
class RefinementFlags(FlagGroup):
    """Settings of ``RefinementConfig``."""

    retries: Annotated[
        int | None,
        typer.Option(help="Ask again this often on policy 'retry'; default: 2."),
    ] = None
    retry_temperature: Annotated[
        float | None, typer.Option(help="Sample retries at this temperature; default: 0.7.")
    ] = None
    after_retries: Annotated[
        str | None,
        typer.Option(
            help="After the last retry, keep or drop the response; default: keep. "
            "'data continue' has nothing to keep."
        ),
    ] = None
    price_in: Annotated[
        float | None, typer.Option(help="Dollars per million prompt tokens, to print the cost.")
    ] = None
    price_out: Annotated[
        float | None, typer.Option(help="Dollars per million reply tokens, to print the cost.")
    ] = None


PolicyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--on",
        metavar="OUTCOME=POLICY",
        help="Choose keep, drop or retry for an outcome; example: empty=drop. Default: retry "
        "no-marker, empty, truncated and error; keep refused, filtered and unchanged.",
    ),
]


@dataclass(eq=False, repr=False)
class AskFlags(FlagGroup):
    """Settings of ``EngineConfig`` that ``rtune eval`` has too, which names its model first."""

    base_url: Annotated[
        str | None,
        typer.Option(help="openai: address of the server; example: http://127.0.0.1:8000/v1."),
    ] = None
    table: Annotated[
        Path | None,
        typer.Option(help="scripted: JSONL file with a 'prompt' and a 'response' in each line."),
    ] = None
    template: Annotated[
        str | None,
        typer.Option(help="hf: chat template for a model without one; example: tulu."),
    ] = None


@dataclass(eq=False, repr=False)
class EngineFlags(AskFlags):
    """Settings of ``EngineConfig``."""

    model: Annotated[
        str | None,
        typer.Option(help="Use this model: folder, .gguf file, hub id, or its name on the server."),
    ] = None
    tokens_per_batch: Annotated[
        int | None,
        typer.Option(help="hf: run this many tokens through the model at once; default: 32768."),
    ] = None
    replicas: Annotated[
        list[str] | None,
        typer.Option("--replica", help="openai: another server of the model; repeat for several."),
    ] = None
    concurrency: Annotated[
        int | None, typer.Option(help="openai: keep this many requests in flight; default: 8.")
    ] = None
    timeout_s: Annotated[
        float | None, typer.Option(help="openai: wait this many seconds for a reply; default: 600.")
    ] = None
    max_retries: Annotated[
        int | None, typer.Option(help="openai: repeat a failed request this often; default: 5.")
    ] = None
    api_key_env: Annotated[
        str | None,
        typer.Option(help="openai: read the key from this variable; default: OPENAI_API_KEY."),
    ] = None


@dataclass(eq=False, repr=False)
class MaskFlags(FlagGroup):
    """Settings of ``FinetuneConfig`` that decide which tokens carry loss."""

    base_model: Annotated[str | None, typer.Option(help="A folder, a .gguf or a hub id.")] = None
    objective: Annotated[
        str | None,
        typer.Option(help="Train on this objective of 'rtune list'; default: response-tuning."),
    ] = None
    twin: Annotated[
        list[str] | None,
        typer.Option(
            help="Keep only responses that this other objective can train on too; example: "
            "instruction-tuning."
        ),
    ] = None
    template: Annotated[
        str | None, typer.Option(help="Use this chat template of 'rtune list'; default: tulu.")
    ] = None
    window: Annotated[
        int | None, typer.Option(help="Cut examples to this many tokens; default: 1024.")
    ] = None

    def settings(self) -> dict[str, object]:
        """Return the settings that the user gave."""
        settings = self.given()
        twins = settings.pop("twin", None)
        return settings | ({"twins": tuple(twins)} if twins else {})


@dataclass(eq=False, repr=False)
class FinetuneFlags(MaskFlags):
    """Settings of ``FinetuneConfig``."""

    method: Annotated[
        str | None, typer.Option(help="Train 'full', 'lora' or 'qlora'; default: lora.")
    ] = None
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak learning rate; default: 0.0002.")
    ] = None
    epochs: Annotated[
        float | None, typer.Option(help="Number of passes over the examples; default: 3.")
    ] = None
    max_steps: Annotated[
        int | None, typer.Option(help="Stop after this many steps; default: after all epochs.")
    ] = None
    examples_per_step: Annotated[
        int | None,
        typer.Option(help="Examples in one optimizer step, over all processes; default: 16."),
    ] = None
    tokens_per_micro_batch: Annotated[
        str | None,
        typer.Option(help="Run this many tokens at once (memory, not result); default: auto."),
    ] = None
    shard: Annotated[
        str | None,
        typer.Option(help="With torchrun, shard over 'full' (all processes) or 'node'."),
    ] = None
    eval_fraction: Annotated[
        float | None,
        typer.Option(help="Hold out this share and log its loss; example: 0.05; default: 0."),
    ] = None
    tokens: Annotated[
        str | None,
        typer.Option(help="Read tokens that 'rtune data tokenize' made: a folder or an address."),
    ] = None
    save_steps: Annotated[
        int | None, typer.Option(help="Save a checkpoint every so many steps; default: 50.")
    ] = None
    random_init: Annotated[
        bool | None, typer.Option("--random-init", help="Control: fresh weights; default: off.")
    ] = None
    merge: Annotated[
        bool | None, typer.Option("--merge", help="Merge the adapter at the end; default: off.")
    ] = None
    report_to: Annotated[
        str | None, typer.Option(help="Log to this tracker; example: tensorboard; default: none.")
    ] = None


@dataclass(eq=False, repr=False)
class BenchmarkFlags(FlagGroup):
    """Settings of ``GradeConfig`` that decide what a benchmark asks."""

    data: Annotated[
        Path | None,
        typer.Option(
            help="Read benchmarks from local copies in this folder (docs/benchmarks); default: "
            "from the hub."
        ),
    ] = None
    limit: Annotated[
        int | None,
        typer.Option(help="Use only this many items per benchmark, evenly spread; default: all."),
    ] = None


@dataclass(eq=False, repr=False)
class JudgeFlags(FlagGroup):
    """Settings of ``JudgeConfig``."""

    judge: Annotated[
        str | None,
        typer.Option(
            help="Judge with 'offline' (rules, for refusals only) or an engine: hf, openai or "
            "scripted; default: offline."
        ),
    ] = None
    judge_model: Annotated[
        str | None,
        typer.Option(help="Use this judge: a folder, a hub id, or its server's name for it."),
    ] = None
    judge_url: Annotated[
        str | None,
        typer.Option(help="Address of the judge's server; example: http://127.0.0.1:8000/v1."),
    ] = None
    judge_table: Annotated[
        Path | None, typer.Option(help="scripted: JSONL file with the judge's replies.")
    ] = None
