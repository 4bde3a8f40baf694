"""What can be asked for: one frozen model for each stage, closed against unknown keys.

A recipe is a YAML file with a section for each stage; the command line's flags override it.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from response_tuning.limits import MaxNewTokens, Temperature


class Config(BaseModel):
    """A frozen set of settings; an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        defer_build=True,
        use_attribute_docstrings=True,
    )
    flags: ClassVar[bool] = True
    """Whether the command line has a flag for each key."""


Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""NumPy's range, the narrowest of the generators that a run seeds."""


_COUNTED = 2**31
"""More than anything that is counted here; torch and Trainer fail on much larger integers."""


class MixtureConfig(Config):
    """Refusals that are mixed into the examples (the paper's section 5)."""

    refusals: int = Field(default=0, ge=0)
    """How many; of one seed, nested: 100 lie inside 200. None, and the source is not read."""
    source: str = "safety-tuned-llamas"
    """Where they come from: a named dataset, a file, a folder, or a hub dataset id."""
    path: Path | None = None
    """A local copy of a named dataset, in the format that the hub has."""
    revision: str = "main"
    split: str = "train"
    response_column: str | None = None
    instruction_column: str | None = None
    selector: Literal["phrases", "paper-regex", "all"] = "phrases"
    """Which rows of the source are refusals: ``paper-regex`` is the paper's, word for word."""


class DecontaminationConfig(Config):
    """Which examples hold a prompt of an evaluation."""

    against: tuple[str, ...] = ()
    """Benchmarks (``rtune list``) and files of prompts."""
    data: Path | None = None
    """Folder with local copies of the benchmarks; without it, from the hub."""
    threshold: float = Field(default=0.8, gt=0, le=1)
    """Jaccard similarity of word triples from which an instruction is near a prompt."""
    remove: bool = False
    """Drop such examples; else they are only counted and listed."""

    @model_validator(mode="after")
    def _possible_together(self) -> Self:
        for name, field in type(self).model_fields.items():
            if not self.against and name != "against" and getattr(self, name) != field.default:
                raise ValueError(
                    f"{name} needs prompts: name benchmarks or files of them in 'against'"
                )
        return self


class CurationConfig(Config):
    """What is done about answers that one would not want to learn. Every step is optional."""

    near_duplicates: float | None = Field(default=None, gt=0, le=1)
    """Drop a response this similar to an earlier one (Jaccard of word triples, by MinHash)."""
    tokenizer: str | None = None
    """Folder or hub id of the tokenizer that counts the tokens of a response."""
    min_tokens: int | None = Field(default=None, ge=0)
    max_tokens: int | None = Field(default=None, ge=1)
    language: str | None = Field(default=None, pattern="^[a-z]{2,3}$")
    """Keep responses in this language alone: its ISO 639 code, such as ``en``."""
    personal_data: Literal["keep", "flag", "drop"] = "keep"
    """E-mail addresses, telephone numbers and keys. Nothing is changed silently."""
    restatements: Literal["keep", "flag", "strip", "drop"] = "keep"
    """Openings that give the instruction away, such as "Sure, here is a recipe for ..."."""

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


class DataConfig(Config):
    """Where the answers come from, and which of them are used."""

    source: str
    """A named dataset (``rtune list``), a file, a folder of texts, or a hub dataset id."""
    path: Path | None = None
    """A local copy of a named dataset, in the format that the hub has."""
    revision: str = "main"
    """Hub revision; the commit that it stands for is resolved at load time and recorded."""
    split: str = "train"
    """Of a hub dataset, or of a folder whose file names say which split they hold."""
    response_column: str | None = None
    instruction_column: str | None = None
    max_examples: int | None = Field(default=None, ge=1)
    """A random subset of this size; subsets of one seed are nested."""
    keep_duplicates: bool = False
    curation: CurationConfig = Field(default_factory=CurationConfig)
    mixture: MixtureConfig = Field(default_factory=MixtureConfig)
    decontamination: DecontaminationConfig = Field(default_factory=DecontaminationConfig)
    seed: Seed = 0


class FinetuneConfig(Config):
    """How a base model is tuned. The defaults are the preset ``small``."""

    base_model: str
    base_revision: str = "main"
    random_init: bool = False
    """Control: the base's architecture with fresh weights."""
    objective: str = "response-tuning"
    twins: tuple[str, ...] = ()
    """Objectives whose arms must train on the same response tokens as this one."""
    template: str = "tulu"
    train_on_final_newline: bool = False
    """Also learn the newline that the template prints after the stop token, as the paper did."""
    method: Literal["full", "lora", "qlora"] = "lora"
    lora_r: int = Field(default=16, ge=1, lt=_COUNTED)
    lora_alpha: int = Field(default=32, ge=1, lt=_COUNTED)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    learning_rate: float = Field(default=2e-4, gt=0)
    scheduler: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0, lt=_COUNTED)
    optimizer: str = "adamw_torch_fused"
    """Any name that ``transformers.TrainingArguments.optim`` knows."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    epochs: float = Field(default=3, gt=0, le=1e6)
    max_steps: int | None = Field(default=None, ge=1, lt=_COUNTED)
    """Stop after this many optimiser steps, whatever ``epochs`` says."""
    examples_per_step: int = Field(default=16, ge=1, lt=_COUNTED)
    """Examples in one optimiser step, over all processes."""
    window: int = Field(default=1024, ge=8, lt=_COUNTED)
    """Longest example in tokens, prefix included; responses are cut to it."""
    tokens_per_micro_batch: Annotated[int, Field(ge=1, lt=_COUNTED)] | Literal["auto"] = "auto"
    """Memory knob: tokens through the model at once; no step changes. ``auto``: what fits."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 where the GPU has it, else float32."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Compute activations twice, to keep fewer. ``auto``: where a GPU's memory asks for it."""
    device: Literal["auto", "cpu"] = "auto"
    eval_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Share of the examples held out; their loss is reported and never used to choose."""
    save_steps: int = Field(default=50, ge=1, lt=_COUNTED)
    report_to: str = "none"
    """A tracker that ``transformers.TrainingArguments.report_to`` knows."""
    merge: bool = False
    """Merge the adapter into its base at the end, so that any server can load the folder."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _possible_together(self) -> Self:
        if self.merge and self.method == "full":
            raise ValueError(
                "merge needs an adapter, and method 'full' already leaves a whole model; set "
                "finetune.merge=false"
            )
        if self.random_init and self.method == "qlora":
            raise ValueError("random_init leaves nothing to quantise: use method full or lora")
        return self


class GenerateConfig(Config):
    """How the models of a run answer its benchmarks."""

    engine: str = "hf"
    """Another one, such as ``openai``, only for a variant that is not tuned."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Of the engine, such as ``base_url``."""
    template: str | None = None
    """Chat template of a variant that is not tuned; None is the one that the others train with."""
    max_new_tokens: MaxNewTokens = 2048
    temperature: Temperature = 0.0
    top_p: float = Field(default=1.0, gt=0, le=1)
    stop: tuple[str, ...] = ()
    """Strings that end an answer."""
    tokens_per_batch: int = Field(default=32768, ge=1)


class JudgeConfig(Config):
    """Who judges what no rule can."""

    flags: ClassVar[bool] = False
    engine: str = "offline"
    """``offline``: rules alone, which know refusals and nothing else; or an engine."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Of that engine, such as ``model`` and ``base_url``."""
    max_new_tokens: MaxNewTokens = 2048
    temperature: Temperature = 0.0
    checked: tuple[Path, ...] = ()
    """What ``rtune judge-check`` left about this judge; it travels with the report."""


class GradeConfig(Config):
    """Where benchmarks are read from, and how answers to them are judged."""

    flags: ClassVar[bool] = False
    data: Path | None = None
    """Folder with local copies, laid out as docs/benchmarks says; without it, from the hub."""
    paths: dict[str, Path] = Field(default_factory=dict)
    """Benchmark -> a local copy of it: a file, or a folder of its files."""
    revisions: dict[str, str] = Field(default_factory=dict)
    """Benchmark -> hub revision, by default ``main``; the commit that it stands for is recorded."""
    limit: int | None = Field(default=None, ge=1)
    """Only so many items of each benchmark, evenly spread: to try something out."""
    reference: str | None = None
    """Pairwise: whose answers the others are compared with: a variant, or a file of answers."""
    difficulties: Path | None = None
    """Pairwise: a file of instructions and their ``difficulty``, for the length-controlled rate."""
    judge: JudgeConfig = Field(default_factory=JudgeConfig)


class ReportConfig(Config):
    """What is compared with what, and how surely."""

    baselines: tuple[str, ...] = ()
    """Variants that every other variant is compared with, item by item."""
    margin: float = Field(default=0.10, gt=0, lt=1)
    """Equivalence margin of the two one-sided tests, in the unit of the metric."""
    equivalence: tuple[str, ...] = ("strict",)
    """Metrics whose equivalence is tested; fixed before the run."""
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    resamples: int = Field(default=10_000, ge=100)
    """Bootstrap resamples, each of whole prompts."""
    seed: Seed = 0
