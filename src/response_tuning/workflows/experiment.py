"""An experiment: variants times seeds in one recipe, checked before anything runs.

A *variant* is one arm; its sections override the sections of the recipe. With a ``grid``, it stands
for one variant at each point. A *cell* is one variant at one seed, and has its own folder.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from response_tuning.configs import (
    Config,
    DataConfig,
    FinetuneConfig,
    GenerateConfig,
    GradeConfig,
)
from response_tuning.errors import ConfigError
from response_tuning.grid import EXCLUDE, SEEDS, VARIANT, Place, flat, matching, read_axes
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
from response_tuning.workflows.arms import OF_UNTUNED, Arm, VariantConfig, crossed, each_once
from response_tuning.workflows.continuing import earlier_variants, linked


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
    grid: Settings = Field(default_factory=dict)
    """Axes that are crossed with the variants: ``bases``, ``datasets``, ``objectives``,
    ``methods``, ``templates``, ``doses``, ``refinement``, ``seeds``, or any setting, such as
    ``finetune.learning_rate``. Each is a list of values, or a mapping of names to values. Without
    ``variants``, the values of the first axis are the variants. ``exclude`` lists what to leave
    out, such as ``{bases: llama, doses: [10, 100]}``."""
    threads: int | None = Field(default=None, ge=1, le=4096)
    """CPU threads; None is torch's choice. Use one for a tiny model: it is the fastest where other
    work shares the cores, and results do not depend on the number of cores."""
    grade: GradeConfig = Field(default_factory=GradeConfig)
    report: ReportConfig = Field(default_factory=ReportConfig)
    notes: tuple[str, ...] = ()
    """Sentences for the top of the report."""

    _each_once = field_validator("seeds", "benchmarks")(each_once)

    @model_validator(mode="before")
    @classmethod
    def _from_grid(cls, values: Any) -> Any:  # noqa: ANN401 - not validated yet
        """Take the seeds, and the variants of a recipe without any, from the grid."""
        if not isinstance(values, Mapping) or not isinstance(values.get("grid"), Mapping):
            return values
        grid, taken = dict(flat({**values["grid"]})), {}
        if SEEDS in grid and SEEDS in values:
            raise ValueError("grid.seeds: the recipe has 'seeds' as well; remove one of them")
        if SEEDS in grid:
            taken[SEEDS] = grid.pop(SEEDS)
        first = next((key for key in grid if key != EXCLUDE), None)
        if first is not None and "variants" not in values:
            taken["variants"] = read_axes({first: grid.pop(first)}, fewest=2)[first]
            if isinstance(entries := grid.get(EXCLUDE), list):
                grid[EXCLUDE] = [_renamed(entry, first) for entry in entries]
        return {**values, **taken, "grid": grid}

    @field_validator("grid")
    @classmethod
    def _readable(cls, grid: Settings) -> Settings:
        read_axes(grid, fewest=2)
        return grid

    @cached_property
    def arms(self) -> dict[str, Arm]:
        """The variants by name, one for each point of the grid.

        Raises:
            ConfigError: as ``crossed``.
        """
        sections = {"data": self.data, "finetune": self.finetune, "generate": self.generate}
        return crossed(sections, self.variants, self.grid)

    @property
    def places(self) -> dict[str, Place]:
        """Variant -> where it lies in the grid of the recipe; nowhere without one."""
        return {name: arm.place if self.grid else {} for name, arm in self.arms.items()}

    @cached_property
    def references(self) -> dict[str, str]:
        """Variant -> the variant that a judge compares it with; empty without such a reference.

        In a grid, the name of a value stands for the variant there that matches. A reference of the
        variant's own wins, and may be a file.
        """
        named, places = self.grade.reference, self.places
        own = {n: arm.variant.reference for n, arm in self.arms.items() if arm.variant.reference}
        if named is None:
            return {}
        if named in places:
            return dict.fromkeys(places, named) | own
        found = {other: one for one, other in matching(named, places)}
        found |= {name: name for name, place in places.items() if named in place.values()}
        return found | own


def _renamed(entry: object, first: str) -> object:
    """Return an entry of ``exclude`` in which the axis that became the variants has their name."""
    if not isinstance(entry, Mapping):
        return entry
    return {VARIANT if axis == first else axis: wanted for axis, wanted in entry.items()}


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
    place: Place = field(default_factory=dict)
    """Where the variant lies in the grid."""
    after: str | None = None
    """The variant whose model, at the same seed, it continues."""
    confidence_of: str | None = None
    """The variant whose confidence, at the same seed, splits its rows."""

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

    ``base=MODEL`` is short for ``finetune.base_model=MODEL``.

    Raises:
        ConfigError: the file is unusable, or a key or a value is; one line that names it.
    """
    longer = [re.sub(r"^base=", "finetune.base_model=", text) for text in settings]
    return read_layers(path, {}, longer).build(Experiment)


def cells(experiment: Experiment) -> list[Cell]:
    """Return every cell, variant by variant.

    Raises:
        ConfigError: a variant's settings are impossible, or two variants have one name.
    """
    earlier = earlier_variants(experiment.arms, experiment.places)
    every = [
        linked(_cell(experiment, name, arm, seed), earlier.get(name, {}))
        for name, arm in experiment.arms.items()
        for seed in arm.variant.seeds or experiment.seeds
    ]
    from response_tuning.report import check_names

    if experiment.grid:
        _check_distinct(every)
    check_names(experiment.places, experiment.report)
    return every


def _check_distinct(every: Sequence[Cell]) -> None:
    """Refuse two variants of a grid with the same content."""
    known: dict[str, str] = {}
    for cell in every:
        tuning = cell.finetune.model_dump_json(include=None if cell.tuned else OF_UNTUNED)
        links = (cell.after, cell.confidence_of)
        parts = (cell.data, tuning, cell.generate, cell.benchmarks, cell.seed, links)
        other = known.setdefault(repr(parts), cell.variant)
        if other != cell.variant:
            raise ConfigError(
                f"grid: '{other}' and '{cell.variant}' are the same; remove one, with "
                "'exclude', or take the variant out of the axis: grid: {AXIS: null}"
            )


def check_experiment(experiment: Experiment, every: Sequence[Cell]) -> None:
    """Refuse a reference that does not exist, and settings of a mixture that have no effect.

    Raises:
        ConfigError: one line that names the first of them.
    """
    _check_reference(experiment)
    _check_parts(experiment)
    # The recipe's own mixture is for every variant with refusals, so one such variant is enough.
    mixing = {cell.variant for cell in every if cell.data and cell.data.mixture.refusals}
    key = idle_mixture(experiment.data)
    if key is not None and not mixing:
        raise no_refusals("data", key)
    for name, variant in experiment.variants.items():
        dosed = {one for one, arm in experiment.arms.items() if arm.place[VARIANT] == name}
        own = idle_mixture({"mixture": {**(variant.data.get("mixture") or {}), "refusals": 0}})
        if own is not None and not mixing & dosed:
            raise no_refusals(f"variant '{name}': data", own)


def _check_reference(experiment: Experiment) -> None:
    reference, found, arms = experiment.grade.reference, experiment.references, experiment.arms
    for name, arm in arms.items():
        _check_own_reference(name, arm, experiment)
    if reference is None or reference in arms:
        return
    if not {*found.values()} & {*arms}:
        if not Path(reference).exists():
            error = unknown("variant", reference, [*arms])
            raise ConfigError(f"grade.reference: no such file, and {error}")
        return
    matches = Counter(other for _, other in matching(reference, experiment.places))
    for name in arms:
        if name not in found or matches[name] > 1:
            raise ConfigError(
                f"grade.reference: {matches[name] or 'no'} variants at '{reference}' match "
                f"'{name}'; name one variant, or leave '{name}' out of the grid"
            )


def _check_own_reference(name: str, arm: Arm, experiment: Experiment) -> None:
    own = arm.variant.reference
    if own is None:
        return
    if own not in experiment.arms and not Path(own).exists():
        error = unknown("variant", own, [*experiment.arms])
        raise ConfigError(f"variant '{name}': reference: no such file, and {error}")
    if experiment.grade.reference is None:
        raise ConfigError(
            f"variant '{name}': reference: has no effect without grade.reference, which is that of "
            "all other variants; set it as well"
        )


def _check_parts(experiment: Experiment) -> None:
    """Refuse seeds and benchmarks of a variant that the recipe, or its reference, does not have."""
    for name, arm in experiment.arms.items():
        for key in ("seeds", "benchmarks"):
            own, known = getattr(arm.variant, key), getattr(experiment, key)
            foreign = [one for one in own or () if one not in known]
            if foreign:
                raise ConfigError(
                    f"variant '{name}': {key}: {foreign[0]} is none of the recipe's; add it to "
                    f"'{key}' of the recipe, or remove it here"
                )
            if own is not None and name in experiment.references.values():
                raise ConfigError(
                    f"variant '{name}': {key}: it is the reference, with which every variant is "
                    "compared at every seed; remove it here"
                )


def with_reference(experiment: Experiment, cell: Cell, benchmark: str, run: Path) -> GradeConfig:
    """Return how ``cell`` is graded: a variant as reference is the path of its answers."""
    reference = experiment.references.get(cell.variant)
    if reference is None:
        return experiment.grade
    if reference not in experiment.arms:
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
            key += f"{cell.after} {cell.confidence_of}"
            alike.setdefault(key, {}).setdefault(mixture.refusals, cell.variant)
    return {
        variant: (doses[min(doses)], dose)
        for doses in alike.values()
        if len(doses) > 1
        for dose, variant in doses.items()
    }


def _cell(experiment: Experiment, name: str, arm: Arm, seed: int) -> Cell:
    preset = preset_called(experiment.preset)
    where = f"variant '{name}'"
    _check_effect(experiment, arm, where)
    # Later ones win: preset, recipe, variant, grid, and then the seed of the cell.
    tuning = merged(experiment.finetune, arm.own["finetune"])
    finetune = {**preset, **tuning, "seed": seed}
    data = {**merged(experiment.data, arm.own["data"]), "seed": seed}
    generate = merged(experiment.generate, arm.own["generate"])
    check_method(finetune, arm.own["finetune"], f"{where}: finetune")
    return Cell(
        variant=name,
        seed=seed,
        label=arm.variant.label,
        data=build(DataConfig, data, where, section=["data"]) if arm.tuned else None,
        finetune=build(FinetuneConfig, finetune, where, section=["finetune"]),
        generate=build(GenerateConfig, generate, where, section=["generate"]),
        benchmarks=arm.variant.benchmarks or experiment.benchmarks,
        place=arm.place,
    )


def _check_effect(experiment: Experiment, arm: Arm, where: str) -> None:
    """Refuse settings that would have no effect, for whoever wrote them expects one."""
    for section in (experiment.data, experiment.finetune, arm.own["data"], arm.own["finetune"]):
        if "seed" in section:
            raise ConfigError(f"{where}: seed: the recipe's 'seeds' sets it; remove it here")
    if arm.tuned:
        if arm.own["generate"].get("template") is not None:
            raise ConfigError(
                f"{where}: generate.template has no effect on a tuned model, which has its "
                "template inside; set finetune.template"
            )
        if merged(experiment.generate, arm.own["generate"]).get("engine", "hf") != "hf":
            raise ConfigError(
                f"{where}: generate.engine: a tuned model runs in this process; use engine 'hf'"
            )
    elif arm.variant.data or arm.variant.doses:
        raise ConfigError(f"{where}: it is not tuned, so its data has no effect; remove it")
