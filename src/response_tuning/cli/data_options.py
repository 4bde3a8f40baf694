"""Options of what is read, and of the steps that rows pass; see ``options``."""

from dataclasses import dataclass
from typing import Annotated

import typer

from response_tuning.cli.flags import FlagGroup
from response_tuning.cli.options import (
    LocalCopyOption,
    RevisionOption,
    SeedOption,
    SplitOption,
    TokenizerOption,
)


@dataclass(eq=False, repr=False)
class ReadFlags(FlagGroup):
    """Settings of ``DataConfig`` that decide what is read."""

    path: LocalCopyOption = None
    revision: RevisionOption = None
    split: SplitOption = None
    response_column: Annotated[
        str | None,
        typer.Option(help="Read responses from this column; default: found by its usual names."),
    ] = None
    instruction_column: Annotated[
        str | None,
        typer.Option(help="Read instructions from this column; default: found by its usual names."),
    ] = None
    encoding: Annotated[
        str | None,
        typer.Option(help="Read text files in this encoding; example: cp1252; default: found out."),
    ] = None
    delimiter: Annotated[
        str | None,
        typer.Option(
            help="Cut the rows of a CSV file at this sign: comma, semicolon, tab, pipe or any "
            "character; default: found out."
        ),
    ] = None
    sheet: Annotated[
        str | None,
        typer.Option(
            help="Read this sheet of an Excel workbook; default: the only one that has rows."
        ),
    ] = None
    sender: Annotated[
        str | None,
        typer.Option(
            help="Use only mails whose sender contains this; example: anna@tea.example; default: "
            "all."
        ),
    ] = None


@dataclass(eq=False, repr=False)
class DataFlags(ReadFlags):
    """Settings of ``DataConfig``: what is read, and how much of it is used."""

    also: Annotated[
        list[str] | None,
        typer.Option(
            help="Read this further source, with settings after commas; repeat for several; "
            "example: faq.xlsx,sheet=FAQ."
        ),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(
            help="Draw examples in this proportion from the source and each --also; example: 3,1; "
            "default: use all."
        ),
    ] = None

    max_examples: Annotated[
        int | None, typer.Option(help="Use a random subset of this many examples; default: all.")
    ] = None
    keep_duplicates: Annotated[
        bool | None, typer.Option(help="Keep exact duplicates; default: drop them.")
    ] = None
    seed: SeedOption = None


@dataclass(eq=False, repr=False)
class CurationFlags(FlagGroup):
    """Settings of ``CurationConfig``."""

    near_duplicates: Annotated[
        float | None,
        typer.Option(
            help="Drop a response that is this similar to an earlier one, from 0 to 1; example: "
            "0.8; default: off."
        ),
    ] = None
    tokenizer: TokenizerOption = None
    min_tokens: Annotated[
        int | None, typer.Option(help="Drop responses of fewer tokens; needs --tokenizer.")
    ] = None
    max_tokens: Annotated[
        int | None, typer.Option(help="Drop responses of more tokens; needs --tokenizer.")
    ] = None
    language: Annotated[
        str | None,
        typer.Option(help="Keep only responses in this language; example: en; default: any."),
    ] = None
    personal_data: Annotated[
        str | None,
        typer.Option(
            help="For e-mail addresses, telephone numbers and keys: keep, flag or drop the "
            "response, or mask them; default: keep."
        ),
    ] = None
    restatements: Annotated[
        str | None,
        typer.Option(
            help="For openings that repeat the instruction: keep, flag, strip or drop; default: "
            "keep."
        ),
    ] = None
    html: Annotated[
        str | None,
        typer.Option(help="For tags of HTML: keep, flag, strip or drop; default: keep."),
    ] = None
    quoted_mail: Annotated[
        str | None,
        typer.Option(
            help="For the mail that a reply quotes: keep, flag, strip or drop; default: keep."
        ),
    ] = None
    signatures: Annotated[
        str | None,
        typer.Option(
            help="For 'Kind regards' or '-- ' and what follows: keep, flag, strip or drop; "
            "default: keep."
        ),
    ] = None
    greetings: Annotated[
        str | None,
        typer.Option(help="For 'Dear Anna,': keep, flag, strip or drop; default: keep."),
    ] = None
    front_matter: Annotated[
        str | None,
        typer.Option(
            help="For YAML at the top of files in a folder of texts: keep or strip; default: strip."
        ),
    ] = None


@dataclass(eq=False, repr=False)
class DecontaminationFlags(FlagGroup):
    """Settings of ``DecontaminationConfig``."""

    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Find examples that contain a prompt of this benchmark or file; repeat for "
            "several."
        ),
    ] = None
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Count an example that is at least this similar to a prompt, 0 to 1; default: 0.8."
        ),
    ] = None
    remove: Annotated[
        bool | None,
        typer.Option("--remove", help="Drop these examples; default: only count and list them."),
    ] = None
