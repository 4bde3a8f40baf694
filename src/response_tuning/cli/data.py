"""The commands of data: prepare, mix, refine, decide, extract, feedback, grades, inspect."""

import re
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from response_tuning.cli import continuing, tokens
from response_tuning.cli.data_options import (
    CurationFlags,
    DataFlags,
    DecontaminationFlags,
    ReadFlags,
)
from response_tuning.cli.flags import chosen, spread
from response_tuning.cli.options import (
    DeviceOption,
    EngineFlags,
    ExamplesOutOption,
    HtmlOption,
    ImportOption,
    JsonOption,
    PolicyOption,
    ProcessesOption,
    RefinementFlags,
    RetryFilteredOption,
    RevisionOption,
    SeedOption,
    SourceArgument,
    SplitOption,
    TokenizerOption,
)
from response_tuning.cli.rewriting import (
    FirstTemperatureOption,
    ReplyTokensOption,
    refinement_section,
    rewrite,
)
from response_tuning.errors import unused
from response_tuning.terminal import console


class _PrepareByDefault(TyperGroup):
    """Takes a first word that is not a command as the source of ``prepare``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's own click
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            if _is_misspelt(args[0], [*self.commands]):
                ctx.fail(f"No such command '{args[0]}'.")
            args = ["prepare", *args]
        return super().parse_args(ctx, args)


def _is_misspelt(word: str, commands: list[str]) -> bool:
    """Whether a word is similar to a command, and no source of ``prepare``."""
    from response_tuning.registry import suggestion

    if not re.fullmatch(r"\w[\w-]*", word) or not suggestion(word, commands):
        return False
    from response_tuning.workflows.names import registered

    return not Path(word).exists() and word not in registered()["datasets"]


app = typer.Typer(
    cls=_PrepareByDefault,
    help="Turn a pile of answers into training examples. 'data SOURCE' is 'data prepare SOURCE'.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(continuing.app)
app.add_typer(tokens.app)


@app.command()
@spread
def prepare(
    source: SourceArgument,
    out: Annotated[
        str,
        typer.Option(
            help="Write the examples and the audit to this folder, or to an address such as "
            "s3://bucket/tea."
        ),
    ],
    reading: DataFlags,
    curation: CurationFlags,
    decontamination: DecontaminationFlags,
    processes: ProcessesOption = 1,
    modules: ImportOption = None,
) -> None:
    """Turn a source into training examples; count what is dropped."""
    sections = {"curation": curation.given(), "decontamination": decontamination.given()}
    settings = {"source": source, **reading.given(), **sections}
    _prepare(settings, out, "rtune data prepare", processes)


@app.command()
@spread
def mix(
    source: Annotated[
        str, typer.Argument(metavar="BASE", help="The examples to mix into: a source.")
    ],
    out: ExamplesOutOption,
    refusals: Annotated[
        int,
        typer.Option(
            help="Mix in this many refusals; with one seed, a larger number includes the smaller."
        ),
    ],
    reading: DataFlags,
    decontamination: DecontaminationFlags,
    mixture_source: Annotated[
        str | None,
        typer.Option(help="Read refusals from this source; default: safety-tuned-llamas."),
    ] = None,
    mixture_path: Annotated[
        Path | None, typer.Option(help="Read a named dataset of refusals from this copy.")
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(help="Source out-of-scope: what you do offer; example: 'tea and tea ware'."),
    ] = None,
    selector: Annotated[
        str | None,
        typer.Option(
            help="Choose the rows that refuse: phrases, paper-regex or all; default: phrases."
        ),
    ] = None,
    modules: ImportOption = None,
) -> None:
    """Mix refusals into examples, as the paper does for safety."""
    if not refusals:
        idle = {"mixture_source": mixture_source, "mixture_path": mixture_path}
        unused("no refusals are mixed in", **idle, selector=selector, scope=scope)
    sections = {
        "mixture": chosen(
            refusals=refusals,
            source=mixture_source,
            path=mixture_path,
            selector=selector,
            scope=scope,
        ),
        "decontamination": decontamination.given(),
    }
    _prepare({"source": source, **reading.given(), **sections}, str(out), "rtune data mix")


@app.command()
@spread
def refine(
    source: SourceArgument,
    out: Annotated[
        Path, typer.Option(help="Write examples, counts, journal and page to this folder.")
    ],
    asked: EngineFlags,
    refinement: RefinementFlags,
    reading: DataFlags,
    engine: Annotated[
        str, typer.Option(help="Rewrite with 'hf', 'openai', 'scripted' or a plug-in's engine.")
    ] = "hf",
    instruction_blind: Annotated[
        bool | None, typer.Option("--instruction-blind", help="Hide instructions from the refiner.")
    ] = None,
    restatements_only: Annotated[
        bool,
        typer.Option(
            "--restatements-only", help="Rewrite only openings that restate the instruction."
        ),
    ] = False,
    on: PolicyOption = None,
    max_new_tokens: ReplyTokensOption = 8192,
    temperature: FirstTemperatureOption = 0.0,
    retry_filtered: RetryFilteredOption = False,
    modules: ImportOption = None,
) -> None:
    """Have an LLM rewrite responses. The same command continues where it stopped."""
    rewriting = refinement_section(
        asked,
        {
            **refinement.given(),
            **chosen(engine=engine, instruction_blind=instruction_blind),
            **({"material": "restatement"} if restatements_only else {}),
        },
        on,
        chosen(max_new_tokens=max_new_tokens, temperature=temperature, seed=reading.seed),
    )
    settings = {"source": source, **reading.given(), "refinement": rewriting}
    rewrite(settings, out, "rtune data refine", retry_filtered=retry_filtered)


@app.command()
def decide(
    folder: Annotated[Path, typer.Argument(help="The folder of a refinement.")],
    decisions: Annotated[Path, typer.Argument(help="The decisions that its page saved.")],
) -> None:
    """Keep the originals of rewrites that you rejected."""
    from response_tuning.workflows import data

    data.run_decide(folder, decisions, console())


@app.command()
@spread
def extract(
    source: Annotated[
        str, typer.Argument(help="A folder of texts, a text or data file, or a hub dataset id.")
    ],
    out: Annotated[
        Path, typer.Option(help="Write passages, examples and the audit to this folder.")
    ],
    asked: EngineFlags,
    refinement: RefinementFlags,
    min_words: Annotated[
        int | None, typer.Option(help="Drop passages of fewer words; default: 50.")
    ] = None,
    max_words: Annotated[
        int | None, typer.Option(help="Split passages of more words; default: 250.")
    ] = None,
    max_passages: Annotated[
        int | None, typer.Option(help="Draw this many passages at random; default: all.")
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Read texts from this column; default: found by its name.")
    ] = None,
    revision: RevisionOption = None,
    split: SplitOption = None,
    seed: SeedOption = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="Rewrite passages in an assistant's voice with 'hf', 'openai' or 'scripted'; "
            "default: do not rewrite."
        ),
    ] = None,
    on: PolicyOption = None,
    max_new_tokens: ReplyTokensOption = 8192,
    temperature: FirstTemperatureOption = 0.0,
    retry_filtered: RetryFilteredOption = False,
    modules: ImportOption = None,
) -> None:
    """Make training examples from passages of plain documents."""
    settings = chosen(
        source=source, revision=revision, split=split, max_examples=max_passages, seed=seed
    )
    settings["extraction"] = chosen(
        text_column=text_column, min_words=min_words, max_words=max_words
    )
    if engine is not None:
        settings["refinement"] = refinement_section(
            asked,
            {**refinement.given(), "engine": engine},
            on,
            chosen(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed),
        )
    else:
        idle = {**asked.given(), "on": on, **refinement.given(), "retry_filtered": retry_filtered}
        unused("passages are rewritten only with --engine", **idle)
    rewrite(settings, out, "rtune data extract", retry_filtered=retry_filtered)


@app.command()
@spread
def feedback(
    source: Annotated[
        Path, typer.Argument(help="A file of conversations, or WildFeedback's annotation.")
    ],
    out: Annotated[Path, typer.Option(help="Write pairs, lists of answers and counts here.")],
    asked: EngineFlags,
    label: Annotated[
        bool,
        typer.Option("--label", help="Have the engine label the users' turns; default: SAT, DSAT."),
    ] = False,
    rewrite: Annotated[
        bool,
        typer.Option("--rewrite", help="Have the engine answer again where an answer displeased."),
    ] = False,
    without_wishes: Annotated[
        bool,
        typer.Option(
            "--without-wishes",
            help="With --rewrite, a control: new answers are written without what the user wants.",
        ),
    ] = False,
    on_policy: Annotated[
        bool,
        typer.Option(
            "--on-policy",
            help="With --rewrite: the engine writes both answers, the rejected one without what "
            "the user wants, and a comparison keeps the pairs in which the other one wins.",
        ),
    ] = False,
    engine: Annotated[
        str | None, typer.Option(help="Ask 'hf', 'openai', 'scripted' or a plug-in's engine.")
    ] = None,
    personal_data: Annotated[
        str | None, typer.Option(help="'drop' or 'keep' rows with personal data; default: drop.")
    ] = None,
    max_new_tokens: ReplyTokensOption = 2048,
    modules: ImportOption = None,
) -> None:
    """Turn what users wrote next into pairs of answers."""
    from response_tuning.validation import build
    from response_tuning.workflows.feedback import FeedbackConfig, run_feedback

    settings = {"source": source, "label": label, "rewrite": rewrite, "settings": asked.given()}
    settings |= {"without_wishes": without_wishes, "on_policy": on_policy}
    settings |= chosen(engine=engine, personal_data=personal_data, max_new_tokens=max_new_tokens)
    config = build(FeedbackConfig, settings, "rtune data feedback")
    run_feedback(config, out, console())


@app.command()
@spread
def grades(
    source: Annotated[
        Path,
        typer.Argument(help="A file with instruction, response and reference in each row."),
    ],
    model: Annotated[
        str, typer.Option(help="The model that rates the answers: the one that wrote them.")
    ],
    out: Annotated[Path, typer.Option(help="Write the graded answers and counts here.")],
    form: Annotated[
        str | None,
        typer.Option(help="Prompt of the rating: 'full', or 'brief' for a base; default: full."),
    ] = None,
    template: Annotated[
        str | None, typer.Option(help="Chat template of the model; default: its own.")
    ] = None,
    device: DeviceOption = "auto",
) -> None:
    """Give answers grades from 0 to 9, for a judge to learn."""
    from response_tuning.validation import build
    from response_tuning.workflows.grade_answers import GradesConfig, run_grades

    engine = {"model": model, "device": device, **chosen(template=template)}
    settings = {"source": source, "settings": engine, **chosen(form=form)}
    run_grades(build(GradesConfig, settings, "rtune data grades"), out, console())


@app.command()
@spread
def inspect(
    source: SourceArgument,
    reading: ReadFlags,
    tokenizer: TokenizerOption = None,
    html: HtmlOption = None,
    json: JsonOption = False,
    modules: ImportOption = None,
) -> None:
    """Show lengths, languages, openings, refusals and duplicates."""
    from response_tuning.configs import DataConfig
    from response_tuning.validation import build
    from response_tuning.workflows import refine

    settings = {"source": source, **reading.given()}
    config = build(DataConfig, settings, "rtune data inspect")
    refine.run_inspect(config, tokenizer, html, console(), json=json)


def _prepare(settings: dict[str, Any], out: str, where: str, processes: int = 1) -> None:
    from response_tuning.configs import DataConfig
    from response_tuning.validation import build
    from response_tuning.workflows import data

    data.run_prepare(build(DataConfig, settings, where), out, console(), processes)
