"""An experiment: variants times seeds in one recipe, checked before anything runs.

A *variant* is one arm; its sections override the sections of the recipe. A variant with ``doses``
stands for one variant for each number of refusals. A *cell* is one variant at one seed, and has its
own folder.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from response_tuning.configs import (
    Config,
    DataConfig,
    FinetuneConfig,
    GenerateConfig,
    GradeConfig,
)
from response_tuning.errors import ConfigError
from response_tuning.limits import Seed
from response_tuning.recipe import (
    IN_FILES,
    Settings,
    check_method,
    idle_mixture,
    merged,
    no_refusals,
    preset_called,
    read_layers,
)
from response_tuning.registry import unknown
from response_tuning.report_config import ReportConfig
from response_tuning.validation import build


def _each_once(named: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    if named is not None and len(set(named)) < len(named):
        raise ValueError(f"each may appear only once; remove the repeated one of {named}")
    return named


class VariantConfig(Config):
    """One arm: its sections override sections of the recipe."""

    label: str = ""
    """A description in one line, for the report."""
    data: Settings = Field(default_factory=dict)
    finetune: Settings | None = Field(default_factory=dict)
    """None: the base model as it is, under the same chat template."""
    generate: Settings = Field(default_factory=dict)
    doses: tuple[int, ...] = ()
    """Numbers of refusals; each makes a variant ``NAME-DOSE``."""
    templates: tuple[str, ...] = ()
    """Chat templates; each makes a variant ``NAME-TEMPLATE``. A file counts by its stem."""
    seeds: tuple[Seed, ...] | None = Field(default=None, min_length=1)
    """Some of the recipe's seeds; None is all of them."""
    benchmarks: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Some of the recipe's benchmarks; None is all of them."""
    reference: str | None = None
    """Pairwise benchmarks: compare with this variant or file instead of ``grade.reference``."""

    _each_once = field_validator("seeds", "benchmarks")(_each_once)


class Experiment(Config):
    """The whole recipe of ``rtune run``."""

    flags: ClassVar[bool] = False
    keywords: ClassVar[tuple[str, ...]] = IN_FILES
    preset: str = "small"
    """Settings of ``finetune`` to start from: ``small`` or ``paper``."""
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)
    """Each seeds the sample of the data, the order of training and fresh weights."""
    data: Settings = Field(default_factory=dict)
    finetune: Settings = Field(default_factory=dict)
    generate: Settings = Field(default_factory=dict)
    benchmarks: tuple[str, ...] = Field(min_length=1)
    """Names of ``rtune list``; every variant answers all of them, unless it names some."""
    variants: dict[str, VariantConfig] = Field(min_length=1)
    """Name -> what this variant does differently from the sections of the recipe."""
    threads: int | None = Field(default=None, ge=1, le=4096)
    """CPU threads; None is torch's choice. Use one for a tiny model: it is the fastest where other
    work shares the cores, and results do not depend on the number of cores."""
    grade: GradeConfig = Field(default_factory=GradeConfig)
    report: ReportConfig = Field(default_factory=ReportConfig)
    notes: tuple[str, ...] = ()
    """Sentences for the top of the report."""

    _each_once = field_validator("seeds", "benchmarks")(_each_once)


@dataclass(frozen=True)
class Cell:
    """One variant at one seed."""

    variant: str
    seed: int
    label: str
    data: DataConfig | None
    """None for a variant that is not tuned."""
    finetune: FinetuneConfig
    """Names the base model and the template also where nothing is tuned."""
    generate: GenerateConfig
    benchmarks: tuple[str, ...]
    reference: str | None = None
    """The variant, or the file of completions, that pairwise benchmarks compare it with."""

    @property
    def name(self) -> str:
        """The cell's folder below the run's, which ``--only`` takes as well."""
        return f"{self.variant}/seed-{self.seed}"

    @property
    def tuned(self) -> bool:
        """Whether the cell trains a model."""
        return self.data is not None

    @property
    def local(self) -> bool:
        """Whether its model is a Hugging Face model that is loaded here."""
        return self.generate.engine == "hf"

    def folder(self, run: Path) -> Path:
        """Return the cell's folder in a run."""
        return run / self.name


def read_experiment(path: Path, settings: Sequence[str] = ()) -> Experiment:
    """Read a recipe and lay ``KEY=VALUE`` settings over it.

    Raises:
        ConfigError: the file is unusable, or a key or a value is; one line that names it.
    """
    return read_layers(path, {}, settings).build(Experiment)


def cells(experiment: Experiment) -> list[Cell]:
    """Return every cell, variant by variant.

    Raises:
        ConfigError: a variant's settings are impossible, or two variants have one name.
    """
    every = [
        _cell(experiment, name, variant, seed)
        for name, variant in _arms(experiment).items()
        for seed in variant.seeds or experiment.seeds
    ]
    from response_tuning.report import check_names

    check_names([*_arms(experiment)], experiment.report)
    return every


def check_experiment(experiment: Experiment, every: Sequence[Cell]) -> None:
    """Refuse a reference that does not exist, and settings of a mixture that have no effect.

    Raises:
        ConfigError: one line that names the first of them.
    """
    arms = _arms(experiment)
    _check_references(experiment, arms)
    # The recipe's own mixture is for every variant with refusals, so one such variant is enough.
    _check_parts(experiment, arms)
    mixing = {cell.variant for cell in every if cell.data and cell.data.mixture.refusals}
    key = idle_mixture(experiment.data)
    if key is not None and not mixing:
        raise no_refusals("data", key)
    for name, variant in experiment.variants.items():
        dosed = {arm for arm, _ in _expanded(name, variant)}
        own = idle_mixture({"mixture": {**(variant.data.get("mixture") or {}), "refusals": 0}})
        if own is not None and not mixing & dosed:
            raise no_refusals(f"variant '{name}': data", own)


def _check_references(experiment: Experiment, arms: Mapping[str, VariantConfig]) -> None:
    """Refuse a reference that is neither a variant nor a file."""
    named = {f"variant '{name}': reference": arm.reference for name, arm in arms.items()}
    for key, reference in {"grade.reference": experiment.grade.reference, **named}.items():
        if reference is not None and reference not in arms and not Path(reference).exists():
            error = unknown("variant", reference, [*arms])
            raise ConfigError(f"{key}: no such file, and {error}")
    if any(named.values()) and experiment.grade.reference is None:
        name = next(name for name, arm in arms.items() if arm.reference is not None)
        raise ConfigError(
            f"variant '{name}': reference: has no effect without grade.reference, which is that of "
            "all other variants; set it as well"
        )


def _check_parts(experiment: Experiment, arms: Mapping[str, VariantConfig]) -> None:
    """Refuse seeds and benchmarks of a variant that the recipe, or its reference, does not have."""
    references = {experiment.grade.reference, *(arm.reference for arm in arms.values())}
    for name, variant in arms.items():
        for key in ("seeds", "benchmarks"):
            own, known = getattr(variant, key), getattr(experiment, key)
            foreign = [one for one in own or () if one not in known]
            if foreign:
                raise ConfigError(
                    f"variant '{name}': {key}: {foreign[0]} is none of the recipe's; add it to "
                    f"'{key}' of the recipe, or remove it here"
                )
            if own is not None and name in references:
                raise ConfigError(
                    f"variant '{name}': {key}: it is the reference, with which every variant is "
                    "compared at every seed; remove it here"
                )


def with_reference(experiment: Experiment, cell: Cell, benchmark: str, run: Path) -> GradeConfig:
    """Return how ``cell`` is graded: a variant as reference is the path of its answers."""
    reference = cell.reference
    if reference not in _arms(experiment):
        return experiment.grade.model_copy(update={"reference": reference})
    answers = replace(cell, variant=reference).folder(run) / "generate" / f"{benchmark}.jsonl"
    return experiment.grade.model_copy(update={"reference": str(answers)})


def series(every: Sequence[Cell]) -> dict[str, tuple[str, int]]:
    """Return (series, dose) of the variants that differ in their number of refusals alone."""
    alike: dict[str, dict[int, str]] = {}
    first = {cell.variant: cell.seed for cell in reversed(every)}
    for cell in every:
        # One seed is enough, as seeds repeat the variants. Two variants form a series if their
        # settings are equal once both have no refusals.
        if cell.data is not None and cell.seed == first[cell.variant]:
            mixture = cell.data.mixture
            same = cell.data.model_copy(
                update={"mixture": mixture.model_copy(update={"refusals": 0})}
            )
            key = "".join(c.model_dump_json() for c in (same, cell.finetune, cell.generate))
            alike.setdefault(key, {}).setdefault(mixture.refusals, cell.variant)
    return {
        variant: (doses[min(doses)], dose)
        for doses in alike.values()
        if len(doses) > 1
        for dose, variant in doses.items()
    }


def _arms(experiment: Experiment) -> dict[str, VariantConfig]:
    """Return all variants by name, one for each dose and template where some are listed."""
    arms: dict[str, VariantConfig] = {}
    for name, variant in experiment.variants.items():
        if name in {"report", "manifest.json"} or not re.fullmatch(r"\w[\w.-]*", name):
            raise ConfigError(
                f"variant {name!r}: a name is letters, digits, '-', '_' and '.', begins with "
                "none of '-' and '.', and is not 'report'"
            )
        for arm, config in _expanded(name, variant):
            if arm in arms:
                raise ConfigError(f"two variants are named '{arm}'; rename one of them")
            arms[arm] = config
    return arms


def _expanded(name: str, variant: VariantConfig) -> Iterator[tuple[str, VariantConfig]]:
    """Yield a variant's arms with their names: one for each dose and template that it lists."""
    for dose in variant.doses or (None,):
        for template in variant.templates or (None,):
            parts = [
                name,
                *([Path(template).stem] if template else []),
                *([str(dose)] if dose is not None else []),
            ]
            arm = variant if dose is None else _dosed(variant, dose)
            yield "-".join(parts), arm if template is None else _rendered(arm, template)


def _rendered(variant: VariantConfig, template: str) -> VariantConfig:
    """Return the variant under another template, which an untuned model is asked in."""
    section = "generate" if variant.finetune is None else "finetune"
    own = merged(getattr(variant, section), {"template": template})
    return variant.model_copy(update={section: own, "templates": ()})


def _dosed(variant: VariantConfig, refusals: int) -> VariantConfig:
    data = merged(variant.data, {"mixture": {"refusals": refusals}})
    return variant.model_copy(update={"data": data, "doses": ()})


def _cell(experiment: Experiment, name: str, variant: VariantConfig, seed: int) -> Cell:
    preset = preset_called(experiment.preset)
    where = f"variant '{name}'"
    _check_effect(experiment, variant, where)
    # Later ones win: preset, recipe, variant, and then the seed of the cell.
    tuning = merged(experiment.finetune, variant.finetune or {})
    finetune = {**preset, **tuning, "seed": seed}
    data = {**merged(experiment.data, variant.data), "seed": seed}
    generate = merged(experiment.generate, variant.generate)
    check_method(finetune, variant.finetune or (), f"{where}: finetune")
    return Cell(
        variant=name,
        seed=seed,
        label=variant.label,
        data=None if variant.finetune is None else build(DataConfig, data, where, section=["data"]),
        finetune=build(FinetuneConfig, finetune, where, section=["finetune"]),
        generate=build(GenerateConfig, generate, where, section=["generate"]),
        benchmarks=variant.benchmarks or experiment.benchmarks,
        reference=variant.reference or experiment.grade.reference,
    )


def _check_effect(experiment: Experiment, variant: VariantConfig, where: str) -> None:
    """Refuse settings that would have no effect, for whoever wrote them expects one."""
    for section in (experiment.data, experiment.finetune, variant.data, variant.finetune or {}):
        if "seed" in section:
            raise ConfigError(f"{where}: seed: the recipe's 'seeds' sets it; remove it here")
    if variant.finetune is not None:
        if variant.generate.get("template") is not None:
            raise ConfigError(
                f"{where}: generate.template has no effect on a tuned model, which has its "
                "template inside; set finetune.template"
            )
        if merged(experiment.generate, variant.generate).get("engine", "hf") != "hf":
            raise ConfigError(
                f"{where}: generate.engine: a tuned model runs in this process; use engine 'hf'"
            )
    elif variant.data or variant.doses:
        raise ConfigError(f"{where}: it is not tuned, so its data has no effect; remove it")
