"""The commands in which a model writes something new: continue, roles; and screen."""

from pathlib import Path
from typing import Annotated

import typer

from response_tuning.cli.data_options import DataFlags
from response_tuning.cli.flags import chosen, spread
from response_tuning.cli.options import (
    EngineFlags,
    ImportOption,
    PolicyOption,
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
from response_tuning.errors import ConfigError, unused
from response_tuning.terminal import console

app = typer.Typer(rich_markup_mode=None)


@app.command("continue")
@spread
def continue_(
    source: Annotated[
        str, typer.Argument(help="A folder of texts, a text or data file, or a hub dataset id.")
    ],
    out: Annotated[
        Path, typer.Option(help="Write passages, halves, examples and the audit to this folder.")
    ],
    asked: EngineFlags,
    refinement: RefinementFlags,
    cut: Annotated[
        str | None,
        typer.Option(
            help="Cut at the 'sentence' end next to the middle, or at the 'exact' middle token; "
            "default: sentence."
        ),
    ] = None,
    tokenizer: TokenizerOption = None,
    min_words: Annotated[
        int | None, typer.Option(help="Drop passages of fewer words; default: 75.")
    ] = None,
    max_words: Annotated[
        int | None, typer.Option(help="Split passages of more words; default: 750.")
    ] = None,
    max_examples: Annotated[
        int | None, typer.Option(help="Draw this many halves at random; default: all.")
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
            help="Have 'hf', 'openai', 'scripted' or 'miniature' write the second halves; default: "
            "keep the documents' own."
        ),
    ] = None,
    request: Annotated[
        str | None,
        typer.Option(
            help="Ask to 'continue' the half, or send it 'bare', as a whole message; default: "
            "continue."
        ),
    ] = None,
    on: PolicyOption = None,
    max_new_tokens: ReplyTokensOption = 2048,
    temperature: FirstTemperatureOption = 0.7,
    retry_filtered: RetryFilteredOption = False,
    modules: ImportOption = None,
) -> None:
    """Cut documents in half; a model may write the second half."""
    settings = chosen(
        source=source, revision=revision, split=split, max_examples=max_examples, seed=seed
    )
    settings["extraction"] = chosen(
        text_column=text_column, min_words=min_words, max_words=max_words
    )
    settings["continuation"] = chosen(cut=cut, tokenizer=tokenizer)
    if engine is None:
        idle = {**asked.given(), "on": on, **refinement.given(), "retry_filtered": retry_filtered}
        unused("second halves are written only with --engine", **idle)
        unused("no writer is asked without --engine", request=request)
    else:
        settings["refinement"] = refinement_section(
            asked,
            {**refinement.given(), **chosen(engine=engine, request=request)},
            on,
            chosen(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed),
            material="half",
        )
    rewrite(settings, out, "rtune data continue", retry_filtered=retry_filtered)


@app.command()
@spread
def roles(
    source: SourceArgument,
    out: Annotated[
        Path, typer.Option(help="Write examples, counts, roles and journal to this folder.")
    ],
    asked: EngineFlags,
    reading: DataFlags,
    refinement: RefinementFlags,
    engine: Annotated[
        str, typer.Option(help="Write roles with 'hf', 'openai', 'scripted' or 'miniature'.")
    ] = "hf",
    fewest_rules: Annotated[
        int | None, typer.Option(help="Draw the number of rules from this on; default: 1.")
    ] = None,
    most_rules: Annotated[
        int | None, typer.Option(help="Draw the number of rules up to this; default: 5.")
    ] = None,
    system: Annotated[
        str | None,
        typer.Option(
            help="Put the role 'given' in front of its response, 'none', or, as a control, a "
            "'shuffled' one; default: given."
        ),
    ] = None,
    no_plain: Annotated[
        bool,
        typer.Option("--no-plain", help="Leave out the rows without a role; default: add them."),
    ] = False,
    no_judge: Annotated[
        bool,
        typer.Option("--no-judge", help="Drop rules without a checker; default: ask the model."),
    ] = False,
    keep_uninformative: Annotated[
        bool | None,
        typer.Option(
            "--keep-uninformative",
            help="Keep rules that the plain response meets already; default: drop them.",
        ),
    ] = None,
    max_new_tokens: ReplyTokensOption = 2048,
    temperature: FirstTemperatureOption = 0.7,
    retry_filtered: RetryFilteredOption = False,
    modules: ImportOption = None,
) -> None:
    """Give instructions roles with rules, and answers in them."""
    settings = {"source": source, **reading.given()}
    settings["roles"] = chosen(
        fewest_rules=fewest_rules,
        most_rules=most_rules,
        system=system,
        keep_uninformative=keep_uninformative,
        plain=False if no_plain else None,
        judge=False if no_judge else None,
    )
    settings["refinement"] = refinement_section(
        asked,
        {**refinement.given(), "engine": engine},
        None,
        chosen(max_new_tokens=max_new_tokens, temperature=temperature, seed=reading.seed),
        material="role",
    )
    rewrite(settings, out, "rtune data roles", retry_filtered=retry_filtered)


@app.command()
@spread
def screen(
    source: SourceArgument,
    out: Annotated[
        Path, typer.Option(help="Write examples, findings, counts and journal to this folder.")
    ],
    reading: DataFlags,
    asked: EngineFlags,
    engine: Annotated[
        str | None,
        typer.Option(
            help="Also ask a judge about each example: 'hf', 'openai' or 'scripted'; default: "
            "count signs only."
        ),
    ] = None,
    drop: Annotated[
        str,
        typer.Option(help="Leave out 'nothing', examples with 'signs', or those 'judged' yes."),
    ] = "nothing",
    retry_filtered: RetryFilteredOption = False,
    modules: ImportOption = None,
) -> None:
    """Count how many texts ask for something or answer a request."""
    from response_tuning.configs import DataConfig, EngineConfig
    from response_tuning.validation import build
    from response_tuning.workflows import screening

    if engine is None:
        idle = {**asked.given(), "retry_filtered": retry_filtered}
        unused("no judge is asked without --engine", **idle)
        if drop == "judged":
            raise ConfigError("--drop judged: there is no judge; name one with --engine")
    where = "rtune data screen"
    config = build(DataConfig, {"source": source, **reading.given()}, where)
    judge = build(EngineConfig, asked.given(), where)
    how = screening.Screening(engine, judge, drop, retry_filtered)
    screening.run_screening(config, how, out, console())
