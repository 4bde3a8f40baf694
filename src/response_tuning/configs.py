"""Every setting: one frozen model for each stage, closed against unknown keys.

A recipe is a YAML file with a section for each stage; flags of the command line override it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from response_tuning import rewriting
from response_tuning.artifacts import Sampling
from response_tuning.continuation_config import ContinuationConfig
from response_tuning.data_config import (
    Config,
    CurationConfig,
    DecontaminationConfig,
    MixtureConfig,
    SourceConfig,
    sources_from_names,
    weights_from_text,
)
from response_tuning.extraction_config import ExtractionConfig
from response_tuning.judging import JudgingConfig
from response_tuning.limits import (
    COUNT_LIMIT,
    KeyVariable,
    MaxNewTokens,
    Seed,
    ServerAddress,
    Temperature,
    check_prices,
)
from response_tuning.preferences_config import PreferencesConfig, check_pairs
from response_tuning.rewriting import Material, Policy, RefinementOutcome
from response_tuning.roles_config import RolesConfig
from response_tuning.rules_config import RulesConfig

__all__ = [
    "Config",
    "CurationConfig",
    "DataConfig",
    "DecontaminationConfig",
    "EngineConfig",
    "EngineSettings",
    "ExtractionConfig",
    "FinetuneConfig",
    "GenerateConfig",
    "GradeConfig",
    "JudgeConfig",
    "MixtureConfig",
    "RefinementConfig",
    "RefinerSampling",
    "SourceConfig",
]


class EngineConfig(Config):
    """Settings of the engines. Each engine reads some of them and refuses the others."""

    # A value may be a secret by mistake, so no message repeats it.
    model_config = ConfigDict(hide_input_in_errors=True)

    model: str | None = None
    """``hf``: a folder, a GGUF file or a hub id; ``openai``: a name on the server."""
    revision: str = Field(default="main", description="``hf``: revision of a hub id.")
    template: str | None = None
    """``hf``: chat template for a model that has none, or instead of its own."""
    device: Literal["auto", "cpu"] = "auto"
    """``hf``: ``auto`` is the first GPU if there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``hf``: ``auto`` is bfloat16 on a GPU that supports it, else float32."""
    tokens_per_batch: int = Field(default=32768, ge=1)
    """``hf``: memory knob: rows x (prompt + new tokens) that go through the model at once."""
    base_url: ServerAddress | None = None
    """``openai``: address of the server, such as ``http://127.0.0.1:8000/v1``, without a key."""
    replicas: tuple[ServerAddress, ...] = Field(default=(), exclude_if=lambda urls: not urls)
    """``openai``: further servers of the same model; answers count as those of ``base_url``."""
    concurrency: int = Field(default=8, ge=1, description="``openai``: requests in flight.")
    timeout_s: float = Field(default=600, gt=0, description="``openai``: seconds of a whole reply.")
    max_retries: int = Field(default=5, ge=0, description="``openai``: attempts after the first.")
    api_key_env: KeyVariable = "OPENAI_API_KEY"
    """``openai``: environment variable that holds the key."""
    table: Path | None = Field(default=None, description="``scripted``: JSONL of replies.")
    rules: RulesConfig | None = Field(default=None, exclude_if=lambda part: part is None)
    """``hf``: the rule adapter; ``generate.rules`` sets it."""
    confidence: bool = Field(default=False, description="``hf``: record how sure each answer is.")
    digits: bool = Field(default=False, exclude_if=lambda is_on: not is_on)
    """``hf``: answer with the most probable digit, and record the mean one: a judge's grade."""

    @model_validator(mode="after")
    def _digits_alone(self) -> Self:
        if self.digits and (self.confidence or self.rules is not None):
            raise ValueError("digits is one token without rules or a confidence; remove these")
        return self


EngineSettings = Annotated[
    EngineConfig,
    PlainSerializer(lambda settings: settings.model_dump(mode="json", exclude_unset=True)),
]
"""A section for an engine. Manifests record what the recipe sets and not the other defaults, so
that a new setting of some engine changes no manifest."""


class RefinerSampling(Sampling):
    """How a rewrite is drawn. The defaults are the paper's."""

    max_new_tokens: MaxNewTokens = 8192


class RefinementConfig(Config):
    """How a model rewrites responses, or continues halves (the paper's appendix G; 2409.00096)."""

    engine: str = "hf"
    """The engine that runs the refiner; ``rtune list`` names them."""
    settings: EngineSettings = Field(default_factory=EngineConfig)
    """Settings of that engine, such as ``model`` and ``base_url``."""
    material: Material = "response"
    """What is rewritten. With ``restatement``, only the openings of responses that restate their
    instruction. A ``passage`` of a document is not in an assistant's voice yet; with
    ``data.extraction``, ``passage`` is the default, and with ``data.continuation``, ``half``: the
    first half of a passage, which is continued."""
    request: Literal["continue", "bare"] | None = Field(default=None, exclude_if=lambda r: not r)
    """``half``: ask to ``continue`` it (the default), or send it ``bare``, as a whole message."""
    instruction_blind: bool = False
    """Show the refiner the response alone, even where there is an instruction."""
    policies: dict[RefinementOutcome, Policy] = Field(default_factory=dict)
    """Outcome -> ``keep`` the original, ``drop`` the example or ``retry``; overrides defaults."""
    after_retries: Literal["keep", "drop"] = "keep"
    """What happens to an example whose last retry failed."""
    retries: int = Field(default=2, ge=0, description="How often policy ``retry`` asks again.")
    retry_temperature: Temperature = Field(default=0.7, gt=0)
    """Temperature of the second and later attempts; a greedy one would repeat the first reply."""
    sampling: RefinerSampling = RefinerSampling()
    """Sampling of the first attempt: greedy, as in the paper."""
    price_in: float | None = Field(default=None, ge=0, description="Dollars per 1M prompt tokens.")
    price_out: float | None = Field(default=None, ge=0, description="Dollars per 1M reply tokens.")

    @model_validator(mode="before")
    @classmethod
    def _one_writer(cls, values: object) -> object:
        return rewriting.with_policies(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _possible_together(self) -> Self:
        check_prices(self.price_in, self.price_out)
        rewriting.check_policies(self.material, self.policies, self.after_retries)
        if self.material != "half" and self.request is not None:
            raise ValueError("request needs material 'half' (data.continuation)")
        return self


class DataConfig(SourceConfig):
    """Where the responses come from, and which of them are used.

    Documents become passages (``extraction``), responses are rewritten (``refinement``), and then
    the examples are prepared, in this order.
    """

    also: Annotated[tuple[SourceConfig, ...], BeforeValidator(sources_from_names)] = Field(
        default=(), exclude_if=lambda sources: not sources
    )
    """Further sources: names, or settings such as ``{source: faq.xlsx, sheet: Answers}``."""
    weights: Annotated[
        tuple[Annotated[float, Field(gt=0, lt=1e6)], ...], BeforeValidator(weights_from_text)
    ] = Field(default=(), exclude_if=lambda weights: not weights)
    """Share of each source, this one first: ``[3, 1]`` draws three examples from it for one of the
    next. By default, all examples of all sources are used."""
    max_examples: int | None = Field(default=None, ge=1)
    """Use a random subset of this size. Subsets of one seed are nested."""
    keep_duplicates: bool = Field(default=False, description="Keep exact duplicates.")
    # Absent sections stay out of manifests, so that folders of earlier versions still match.
    extraction: ExtractionConfig | None = Field(default=None, exclude_if=lambda part: part is None)
    """Take passages of documents as responses."""
    continuation: ContinuationConfig | None = Field(default=None, exclude_if=lambda part: not part)
    """Cut passages in half; the second half, or what a model writes, answers the first."""
    refinement: RefinementConfig | None = Field(default=None, exclude_if=lambda part: part is None)
    """Have an LLM rewrite the responses."""
    roles: RolesConfig | None = Field(default=None, exclude_if=lambda part: not part)
    """Give each instruction a role with rules, and a response in that role."""
    preferences: PreferencesConfig | None = Field(default=None, exclude_if=lambda p: p is None)
    """Read pairs of answers, one of which was preferred. ``max_examples`` then counts pairs."""
    judging: JudgingConfig | None = Field(default=None, exclude_if=lambda part: part is None)
    """Read graded answers: each gives two prompts for a judge. ``max_examples`` counts answers."""
    curation: CurationConfig = Field(default_factory=CurationConfig)
    mixture: MixtureConfig = Field(default_factory=MixtureConfig)
    decontamination: DecontaminationConfig = Field(default_factory=DecontaminationConfig)
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _one_material(cls, values: object) -> object:
        return rewriting.with_material(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _material_has_its_section(self) -> Self:
        if self.roles is not None and (self.refinement is None or self.extraction is not None):
            raise ValueError("roles needs a section refinement that names a model, and no passages")
        if self.refinement is not None:
            sections = {"half": self.continuation, "role": self.roles}
            given = [material for material, section in sections.items() if section]
            rewriting.check_material(self.refinement.material, given)
        return self

    @model_validator(mode="after")
    def _several_sources(self) -> Self:
        if self.weights and len(self.weights) != 1 + len(self.also):
            raise ValueError(
                f"{len(self.weights)} weights for {1 + len(self.also)} sources; give one for each, "
                "this source first"
            )
        if self.also and (self.extraction is not None or self.refinement is not None):
            raise ValueError(
                "'also' has no effect with extraction or refinement, which read one source; "
                "extract or refine into files first, and list those"
            )
        return self

    @model_validator(mode="after")
    def _pairs_stay_pairs(self) -> Self:
        made: dict[str, object] = {"extraction": self.extraction, "refinement": self.refinement}
        made["also"] = self.also or None
        made |= {"mixture.refusals": self.mixture.refusals or None}
        check_pairs(self.preferences, made)
        curated = None if self.curation == CurationConfig() else self.curation
        other = made | {"preferences": self.preferences, "curation": curated}
        name = next((name for name, part in other.items() if part is not None), None)
        if self.judging is not None and name is not None:
            raise ValueError(f"{name} has no use for judged answers; remove it or judging")
        return self

    @model_validator(mode="after")
    def _passages_have_one_column(self) -> Self:
        for name in ("response_column", "instruction_column"):
            if self.extraction is not None and getattr(self, name) is not None:
                raise ValueError(
                    f"{name} has no effect with extraction, which reads extraction.text_column; "
                    "remove it"
                )
        return self


class FinetuneConfig(Config):
    """How a base model is tuned. The defaults equal the preset ``small``."""

    base_model: str = Field(description="Folder or hub id of the base model.")
    base_revision: str = Field(default="main", description="Hub revision of the base model.")
    continue_from: Path | None = Field(default=None, exclude_if=lambda run: run is None)
    """Folder of a finished run: start from its weights, with a fresh optimizer. An adapter goes on;
    a whole model is the base of this run."""
    random_init: bool = False
    """Control: use the architecture of the base with fresh weights."""
    objective: str = Field(default="response-tuning", description="A name of ``rtune list``.")
    objective_settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of the objective, such as ``prompt_weight`` of ``weighted-instruction-tuning``."""
    twins: tuple[str, ...] = ()
    """Objectives whose variants must train on the same response tokens as this one."""
    template: str = Field(default="tulu", description="A name of ``rtune list``, or a file.")
    train_on_final_newline: bool = False
    """Also train on the newline after the stop token, as the paper did."""
    method: Literal["full", "lora", "qlora"] = "lora"
    """``full``: all weights; ``lora``: an adapter; ``qlora``: an adapter on a 4-bit base."""
    lora_r: int = Field(default=16, ge=1, lt=COUNT_LIMIT, description="Rank of the adapter.")
    lora_alpha: int = Field(default=32, ge=1, lt=COUNT_LIMIT, description="Scale times rank.")
    lora_dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout in the adapter.")
    learning_rate: float = Field(default=2e-4, gt=0, description="Peak learning rate.")
    scheduler: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate changes after the warm-up."""
    warmup_steps: int = Field(default=0, ge=0, lt=COUNT_LIMIT, description="Linear warm-up.")
    optimizer: str = "adamw_torch_fused"
    """A name of an optimizer, as in ``transformers.TrainingArguments.optim``."""
    weight_decay: float = Field(default=0.0, ge=0, description="Weight decay.")
    max_grad_norm: float = Field(default=1.0, gt=0, description="Clip gradients to this norm.")
    epochs: float = Field(default=3, gt=0, le=1e6, description="Passes over the examples.")
    max_steps: int | None = Field(default=None, ge=1, lt=COUNT_LIMIT)
    """Stop after this many optimizer steps; overrides ``epochs``."""
    examples_per_step: int = Field(default=16, ge=1, lt=COUNT_LIMIT)
    """Batch size of an optimizer step, over all processes."""
    examples_per_mean: int | None = Field(
        default=None, ge=1, lt=COUNT_LIMIT, exclude_if=lambda count: count is None
    )
    """Average the loss over the tokens of so many examples of a step, then over these means, as
    gradient accumulation did in the paper's code (8). By default, over all tokens of the step."""
    window: int = Field(default=1024, ge=8, lt=COUNT_LIMIT)
    """Longest example in tokens, prefix included. Longer responses are truncated."""
    tokens_per_micro_batch: Annotated[int, Field(ge=1, lt=COUNT_LIMIT)] | Literal["auto"] = "auto"
    """Memory knob: tokens through the model at once. Results do not change. ``auto``: what fits."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 if the GPU supports it, else float32."""
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    """Recompute activations to save memory. ``auto``: if the GPU's memory requires it."""
    shard: Literal["full", "node"] | None = Field(default=None, exclude_if=lambda way: way is None)
    """FSDP2 under ``torchrun``: over all processes, or over each node's (gradients across)."""
    device: Literal["auto", "cpu"] = "auto"
    """``auto``: a GPU if there is one."""
    eval_fraction: float = Field(default=0.0, ge=0, lt=1)
    """Share of the examples in the validation split. Its loss is logged and selects nothing.
    ``rtune finetune`` holds out 0.1 of your own file, unless you or a recipe say otherwise."""
    record_confidence: bool = Field(default=False, exclude_if=lambda is_on: not is_on)
    """Write ``confidence.jsonl``: how sure the run was of each row. ``sftmix`` reads it."""
    tokens: str | None = Field(default=None, min_length=1, exclude_if=lambda place: place is None)
    """Folder or address of tokens that ``rtune data tokenize`` made of the same examples."""
    save_steps: int = Field(default=50, ge=1, lt=COUNT_LIMIT, description="Checkpoint interval.")
    report_to: str = "none"
    """A tracker, as in ``transformers.TrainingArguments.report_to``."""
    merge: bool = False
    """Merge the adapter into its base after training, so that any server can load the folder."""
    merge_into: Literal["base", "nf4"] = Field(default="base", exclude_if=lambda i: i == "base")
    """``base``: the base's own weights, as in the paper. ``nf4``: the 4-bit weights that ``qlora``
    trained against, dequantized."""
    seed: Seed = 0

    @model_validator(mode="after")
    def _possible_together(self) -> Self:
        if self.merge and self.method == "full":
            raise ValueError("merge needs an adapter, not method 'full': set finetune.merge=false")
        if (mean := self.examples_per_mean or 0) > (step := self.examples_per_step):
            raise ValueError(f"examples_per_mean {mean} is above examples_per_step {step}")
        if self.merge_into != "base" and self.method != "qlora":
            raise ValueError("merge_into 'nf4' needs an adapter on 4-bit weights: method 'qlora'")
        if self.random_init and self.method == "qlora":
            raise ValueError("random_init leaves nothing to quantise: use method full or lora")
        return self


class GenerateConfig(Config):
    """How the models of a run answer its benchmarks."""

    engine: str = "hf"
    """Only a variant that is not tuned may use another one, such as ``openai``."""
    settings: EngineSettings = Field(default_factory=EngineConfig)
    """Settings of the engine, such as ``base_url``."""
    template: str | None = None
    """Chat template of a variant that is not tuned. Defaults to ``finetune.template``."""
    max_new_tokens: MaxNewTokens = 2048
    temperature: Temperature = 0.0
    top_p: float = Field(default=1.0, gt=0, le=1, description="Nucleus sampling.")
    stop: tuple[str, ...] = Field(default=(), description="Strings that end a completion.")
    rules: RulesConfig | None = Field(default=None, exclude_if=lambda part: part is None)
    """Rules of Hewitt et al. (arXiv 2409.14254) that change the probabilities of single tokens."""
    tokens_per_batch: int = Field(default=32768, ge=1, description="Memory knob of ``hf``.")


class JudgeConfig(Config):
    """Which model judges completions where no rule can."""

    flags: ClassVar[bool] = False
    engine: str = "offline"
    """An engine, or ``offline``: rules, which detect refusals and nothing else."""
    settings: EngineSettings = Field(default_factory=EngineConfig)
    """Settings of that engine, such as ``model`` and ``base_url``."""
    max_new_tokens: MaxNewTokens = 2048
    temperature: Temperature = 0.0
    checked: tuple[Path, ...] = ()
    """Records of ``rtune judge-check`` about this judge; the report quotes them."""
    price_in: float | None = Field(default=None, ge=0, exclude_if=lambda price: price is None)
    """Dollars for a million tokens of questions; ``--dry-run`` counts with it."""
    price_out: float | None = Field(default=None, ge=0, exclude_if=lambda price: price is None)
    """Dollars for a million tokens of replies."""
    NOT_JUDGING: ClassVar[frozenset[str]] = frozenset({"checked", "price_in", "price_out"})
    """Settings that change no verdict."""

    @model_validator(mode="after")
    def _both_prices(self) -> Self:
        check_prices(self.price_in, self.price_out)
        return self


class GradeConfig(Config):
    """Where benchmarks are read from, and how completions are judged."""

    flags: ClassVar[bool] = False
    data: Path | None = None
    """Folder with local copies (layout: docs/benchmarks). By default, the hub is read."""
    paths: dict[str, Path] = Field(default_factory=dict)
    """Benchmark -> a local copy: a file, or a folder of its files."""
    revisions: dict[str, str] = Field(default_factory=dict)
    """Benchmark -> hub revision, by default ``main``. The commit is recorded."""
    limit: int | None = Field(default=None, ge=1)
    """Use only so many items of each benchmark, evenly spread, for a quick try."""
    reference: str | None = None
    """Pairwise benchmarks: the variant, or the file of completions, to compare with."""
    difficulties: Path | None = None
    """Pairwise benchmarks: a file of instructions and their ``difficulty``, for the
    length-controlled win rate."""
    judge: JudgeConfig = Field(default_factory=JudgeConfig)
