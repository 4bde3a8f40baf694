"""Settings of the sources of examples, and of what is done to their rows.

``configs`` holds the settings of all stages, these among them.
"""

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from response_tuning.limits import ColumnName
from response_tuning.spreadsheets import DELIMITERS

Cleaning: TypeAlias = Literal["keep", "flag", "strip", "drop"]


class Config(BaseModel):
    """A frozen set of settings; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)
    model_config["use_attribute_docstrings"] = True  # rtune config prints them
    flags: ClassVar[bool] = True
    """Whether the command line has a flag for each key."""


def known_encoding(name: str | None) -> str | None:
    """Refuse an encoding of text that Python does not know."""
    if name is not None:
        try:
            "".encode(name)
        except LookupError as error:
            raise ValueError(
                f"unknown encoding '{name}'; examples: utf-8, cp1252, iso8859-15, mac-roman, "
                "utf-16, shift_jis"
            ) from error
    return name


def known_delimiter(name: str | None) -> str | None:
    """Refuse a delimiter that is neither a name nor one character."""
    if name is None or name in DELIMITERS:
        return name
    if len(name) != 1 or name in '"\r\n':
        raise ValueError(f"expected {', '.join(DELIMITERS)} or one character, found {name!r}")
    return name


def sources_from_names(value: object) -> object:
    """Read sources that are given by name, with settings: ``faq.xlsx,sheet=Answers``."""
    if isinstance(value, list | tuple):
        return [_source(one) if isinstance(one, str) else one for one in value]
    return value


def _source(text: str) -> dict[str, str]:
    name, *settings = re.split(r",(?=[a-z_]+=)", text)
    return {"source": name} | dict(setting.split("=", 1) for setting in settings)


def weights_from_text(value: object) -> object:
    """Read weights as the command line has them: ``3,1``."""
    return value.split(",") if isinstance(value, str) else value


def unless_given() -> Any:  # noqa: ANN401 - as Field
    """Return a field that stays out of manifests while it is None.

    Folders of versions without the setting then still match.
    """
    return Field(default=None, exclude_if=lambda value: value is None)


def as_found() -> Any:  # noqa: ANN401 - as Field
    """Return a field for a step that is off, and then not in manifests."""
    return Field(default="keep", exclude_if=lambda value: value == "keep")


class SourceConfig(Config):
    """A source of rows, and how it is read."""

    source: str
    """A named dataset (``rtune list``), a file, a folder of texts, or a hub dataset id."""
    path: Path | None = None
    """A local copy of a named dataset, in the format of the hub."""
    revision: str = "main"
    """Hub revision. The commit is resolved at load time and recorded."""
    split: str = "train"
    """Split of a hub dataset, or of a folder whose file names say which split they hold."""
    response_column: ColumnName = None
    instruction_column: ColumnName = None
    encoding: Annotated[str | None, AfterValidator(known_encoding)] = unless_given()
    """Encoding of text files, such as ``cp1252``. By default, it is found out from the bytes."""
    delimiter: Annotated[str | None, AfterValidator(known_delimiter)] = unless_given()
    """Between the cells of a CSV file: ``comma``, ``semicolon``, ``tab``, ``pipe`` or one
    character. By default, it is found out from the first rows."""
    sheet: str | None = unless_given()
    """Sheet of an Excel workbook; needed if several have rows."""
    sender: Annotated[str | None, Field(min_length=1)] = unless_given()
    """Use only mails whose sender's name or address contains this."""
    scope: Annotated[str | None, Field(min_length=1)] = unless_given()
    """For the dataset ``out-of-scope``: what you do offer, such as ``tea and tea ware``."""


class MixtureConfig(SourceConfig):
    """Refusals that are mixed into the examples (the paper's section 5)."""

    source: str = "safety-tuned-llamas"
    """A named dataset, such as ``out-of-scope``, a file, a folder, or a hub dataset id."""
    refusals: int = Field(default=0, ge=0)
    """How many. Draws of one seed are nested: 100 lie inside 200. With 0, no source is read."""
    selector: Literal["phrases", "paper-regex", "all"] = "phrases"
    """Which rows of the source are refusals: ``paper-regex`` is the paper's, word for word."""


class DecontaminationConfig(Config):
    """Which examples contain a prompt of an evaluation."""

    against: tuple[str, ...] = ()
    """Benchmarks (``rtune list``) and files of prompts."""
    data: Path | None = None
    """Folder with local copies of the benchmarks. By default, the hub is read."""
    threshold: float = Field(default=0.8, gt=0, le=1)
    """Jaccard similarity of word triples at which an instruction counts as a prompt."""
    remove: bool = False
    """Drop such examples. Otherwise they are only counted and listed."""

    @model_validator(mode="after")
    def _possible_together(self) -> Self:
        for name, field in type(self).model_fields.items():
            if not self.against and name != "against" and getattr(self, name) != field.default:
                raise ValueError(
                    f"{name} needs prompts: name benchmarks or files of them in 'against'"
                )
        return self


class CurationConfig(Config):
    """Steps that drop, flag or change unwanted responses. All are off by default."""

    near_duplicates: float | None = Field(default=None, gt=0, le=1)
    """Drop a response this similar to an earlier one (Jaccard of word triples, by MinHash)."""
    tokenizer: str | None = None
    """Folder or hub id of the tokenizer that counts the tokens of a response."""
    min_tokens: int | None = Field(default=None, ge=0, description="Drop shorter responses.")
    max_tokens: int | None = Field(default=None, ge=1, description="Drop longer responses.")
    language: str | None = Field(default=None, pattern="^[a-z]{2,3}$")
    """Keep only responses in this language: its ISO 639 code, such as ``en``."""
    personal_data: Literal["keep", "flag", "mask", "drop"] = "keep"
    """E-mail addresses, telephone numbers and keys. ``mask`` writes ``[e-mail]``, ``[phone]`` or
    ``[key]`` instead, also in instructions."""
    restatements: Literal["keep", "flag", "strip", "drop"] = "keep"
    """Openings that repeat the instruction, such as "Sure, here is a recipe for ...", also behind
    a greeting."""
    html: Cleaning = as_found()
    """Tags and entities. ``strip`` leaves the text that a reader sees."""
    quoted_mail: Cleaning = as_found()
    """The mail that a reply quotes: lines with ``>``, and what follows "On ... wrote:" or
    "-----Original Message-----"."""
    signatures: Cleaning = as_found()
    """The end of a mail, from ``-- `` or "Kind regards" on."""
    greetings: Cleaning = as_found()
    """The beginning of a mail, such as "Dear Anna,": a model learns the names."""
    front_matter: Literal["keep", "strip"] = Field(
        default="strip", exclude_if=lambda what: what == "strip"
    )
    """YAML between two lines ``---`` at the top of a file in a folder of texts."""

    @model_validator(mode="after")
    def _possible_together(self) -> Self:
        bounds = [bound for bound in (self.min_tokens, self.max_tokens) if bound is not None]
        if bounds and self.tokenizer is None:
            raise ValueError("min_tokens and max_tokens need a tokenizer to count with")
        if self.tokenizer is not None and not bounds:
            raise ValueError("a tokenizer has no use without min_tokens or max_tokens")
        if bounds != sorted(bounds):
            raise ValueError(f"min_tokens ({bounds[0]}) is more than max_tokens ({bounds[1]})")
        return self
