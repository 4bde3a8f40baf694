"""Which published numbers a variant may stand beside: base, data and protocol must match.

``published/tables.yaml`` has the protocol of each table, as far as the paper states it. A setting
that differs is named, so that it is clear why a number is not shown. Where no setting can make the
protocols the same, the table gives the reason, and its number is listed without a difference.
"""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from response_tuning import yaml_text
from response_tuning.configs import DataConfig, FinetuneConfig, GenerateConfig, GradeConfig
from response_tuning.recipe import preset_called
from response_tuning.workflows.experiment import Cell, Experiment

if TYPE_CHECKING:
    from response_tuning.report import NotCompared, Published, PublishedBeside, Training

Flat: TypeAlias = dict[str, Any]
"""Dotted key -> value."""
UNTUNED, PEOPLE = "untuned", "people"
NEAR = 0.05
"""Share by which the number of examples may differ: the paper rounds it, and duplicates go."""
_FREE = (
    # Where things are, and how they fit into memory.
    *(
        "finetune.base_*",
        "finetune.device",
        "finetune.precision",
        "finetune.tokens_per_micro_batch",
    ),
    *("finetune.gradient_checkpointing", "finetune.save_steps", "finetune.report_to"),
    *("data.path", "data.revision", "data.*_column", "data.mixture.path", "data.mixture.revision"),
    *("generate.tokens_per_batch", "generate.settings*", "generate.engine"),
    *("data.refinement.settings.[!m]*", "data.refinement.engine", "data.refinement.price_*"),
    # Compared by themselves.
    *("finetune.objective", "finetune.seed", "finetune.twins", "generate.template"),
    *("data.source", "data.seed", "data.max_examples", "data.mixture.refusals"),
    # The paper's code and its text differ.
    *("finetune.train_on_final_newline", "finetune.examples_per_mean"),
)


def published_beside(
    experiment: Experiment, every: Sequence[Cell], cell: Cell, trained: "Sequence[Training]"
) -> "PublishedBeside":
    """Return the published numbers for the variant of ``cell``, one of the run's cells, ``every``.

    ``trained`` says on how many examples it was trained at each seed.
    """
    from response_tuning.report import PublishedBeside, asked

    rows: list[Published] = []
    reasons: list[str] = []
    remarks: list[str] = []
    not_compared: list[NotCompared] = []
    for wanted in experiment.report.published:
        table = _Table(wanted.partition("/")[0], experiment, every)
        fitting, reason = table.fitting(asked(wanted), cell, trained)
        compared = [row for row in fitting if not table.against(row)[1]]
        rows += map(table.with_prompts, compared)
        not_compared += table.not_compared(wanted, fitting)
        if compared:
            remarks += (f"{wanted}: {remark}" for remark in table.remarks(cell))
        if reason:
            reasons.append(f"{wanted}: {reason}")
    return PublishedBeside(tuple(rows), tuple(reasons), tuple(remarks), tuple(not_compared))


def _shown(cell: Cell) -> set[str]:
    """Return the benchmarks that a report shows for a cell, averages included."""
    from response_tuning.grade import averages

    return {*cell.benchmarks, *(one.name for one in averages(cell.benchmarks, GradeConfig()))}


class _Table:
    """The protocol of one table, and a run that may follow it."""

    def __init__(self, name: str, experiment: Experiment, every: Sequence[Cell]) -> None:
        self.facts: Mapping[str, Any] = _protocols()["tables"][name]
        self._grade = experiment.grade
        self._references = experiment.references
        self._every = every

    def with_prompts(self, row: "Published") -> "Published":
        """Return a row with the number of prompts that it is a mean over."""
        prompts = self.facts.get("prompts", {})
        return row._replace(
            prompts=prompts.get(f"{row.benchmark}/{row.metric}", prompts.get(row.benchmark))
        )

    def against(self, row: "Published") -> tuple[str, str]:
        """Return what no setting makes comparable, and why; both empty: nothing is known."""
        reasons: Mapping[str, str] = self.facts.get("against", {})
        keys = (f"{row.benchmark}/{row.metric}", row.benchmark)
        return next(((key, reasons[key]) for key in keys if key in reasons), ("", ""))

    def not_compared(self, wanted: str, rows: "Sequence[Published]") -> "Iterator[NotCompared]":
        """Yield the rows that fit a variant and are not compared, together if for one reason."""
        from response_tuning.report import NotCompared

        found: dict[tuple[str, str], list[Published]] = {}
        for row in rows:
            if (reason := self.against(row))[1]:
                found.setdefault(reason, []).append(row)
        for (part, why), of_reason in found.items():
            yield NotCompared(wanted, part, why, tuple(of_reason))

    def remarks(self, cell: Cell) -> Iterator[str]:
        """Yield what may differ although all settings match."""
        from response_tuning.grade import files_of

        if remark := self.facts.get("remark"):
            yield remark
        if _is_local(cell.finetune.base_model):
            yield "finetune.base_model is a local folder, of which only the name is compared."
        local = "is a local copy, which is not compared with the published data."
        if cell.data and cell.data.path is not None:
            yield f"data.path {local}"
        if cell.data and cell.data.mixture.refusals and cell.data.mixture.path is not None:
            yield f"data.mixture.path {local}"
        if self._grade.data is not None or {*self._grade.paths} & files_of(cell.benchmarks):
            yield (
                "The prompts are a local copy (grade.data, grade.paths), of which only the number "
                "is compared."
            )

    def fitting(
        self, rows: "Sequence[Published]", cell: Cell, trained: "Sequence[Training]"
    ) -> "tuple[list[Published], str]":
        """Return the rows that fit a variant, or why none does.

        They may be of benchmarks and metrics that the run does not measure.
        """
        reason = f"it has no number of {', '.join(cell.benchmarks)}"
        if not {row.benchmark for row in rows} & _shown(cell):
            return [], reason
        for part in (self._of_base, self._of_method, self._of_data):
            rows, reason = part(rows, cell)
            if not rows:
                return [], reason
        reason = next(self._differences(rows[0], cell, trained), "")
        return ([], reason) if reason else ([*rows], "")

    def _of_base(self, rows: "Sequence[Published]", cell: Cell) -> "tuple[list[Published], str]":
        base = cell.finetune.base_model
        if not cell.local:
            return [], f"engine '{cell.generate.engine}' answers, whose model is not compared"
        aliases: Mapping[str, str] = _protocols()["bases"]
        known = ", ".join(dict.fromkeys(row.base for row in rows))
        return (
            [row for row in rows if _is_of(base, aliases.get(row.base, row.base))],
            f"the base is {_said_base(base)}, and the table has {known}",
        )

    def _of_method(self, rows: "Sequence[Published]", cell: Cell) -> "tuple[list[Published], str]":
        method = cell.finetune.objective if cell.tuned else UNTUNED
        aliases = self.facts.get("methods", {})
        fitting = [row for row in rows if aliases.get(row.method, row.method) == method]
        if aliases:  # several rows of one method: the one whose settings are the variant's
            flat = _flat(cell)
            fitting = [row for row in fitting if not _unlike(flat, self._expected(row, cell))][
                :1
            ] or (fitting[:1])
        known = ", ".join(dict.fromkeys(row.method for row in rows))
        return fitting, f"the table has no {method} of this base, only {known}"

    def _of_data(self, rows: "Sequence[Published]", cell: Cell) -> "tuple[list[Published], str]":
        if cell.data is None:
            return [*rows], ""
        data, dose = cell.data, cell.data.mixture.refusals
        name = "news" if data.extraction else _data_name(data.source)
        fitting = [row for row in rows if (row.data, row.refusals) == (name, dose)]
        known = dict.fromkeys(f"{row.data}{_and_refusals(row.refusals)}" for row in rows)
        own = f"{name}{_and_refusals(dose)}"
        return fitting, f"the data are {own}, and the table has {', '.join(known)}"

    def _differences(
        self, row: "Published", cell: Cell, trained: "Sequence[Training]"
    ) -> Iterator[str]:
        """Yield what differs from the protocol, the most telling first."""
        yield from _unlike(_flat(cell), self._expected(row, cell))
        yield from self._sizes(row, cell, trained)
        if self._grade.limit is not None:
            yield f"grade.limit is {self._grade.limit}, and the table has all prompts"
        yield from self._judges()
        yield from self._compared(cell)

    def _expected(self, row: "Published", cell: Cell) -> Flat:
        """Return the settings of a row that are not the defaults."""
        preset = preset_called(self.facts["preset"]) if "preset" in self.facts else {}
        expected = {f"finetune.{key}": value for key, value in preset.items()}
        expected |= self.facts.get("settings", {})
        for case in self.facts.get("cases", ()):
            settings = dict(case)
            if all(getattr(row, key) == value for key, value in settings.pop("when").items()):
                expected |= settings
        if row.refusals == 0:
            expected = {key: v for key, v in expected.items() if not key.startswith("data.mixture")}
        if not cell.tuned:
            untuned = ("generate.", "finetune.template")
            expected = {key: v for key, v in expected.items() if key.startswith(untuned)}
        return expected

    def _sizes(self, row: "Published", cell: Cell, trained: "Sequence[Training]") -> Iterator[str]:
        sizes: Mapping[str, int] = _protocols()["sizes"]
        size = self.facts.get("examples") or sizes.get(row.data)
        if not cell.tuned or size is None or not trained:
            return
        size += row.refusals or 0
        if abs(trained[0].kept / size - 1) > NEAR:
            yield f"{trained[0].kept:,} examples were trained on, and {size:,} in the table"

    def _judges(self) -> Iterator[str]:
        expected, judge = self.facts.get("judge"), self._grade.judge
        if expected is None:
            return
        own = Path(judge.settings.model or judge.engine).name
        if own.casefold() != str(expected).casefold():
            yield f"the judge is {own}, and {_named(expected)} in the table"

    def _compared(self, cell: Cell) -> Iterator[str]:
        same, has = self.facts.get("reference"), self.facts.get("reference_has")
        if same is None and has is None:
            return
        reference = self._references.get(cell.variant, self._grade.reference)
        named = (one for one in self._every if one.variant == reference)
        other = next((one for one in named if one.seed == cell.seed), None)
        if other is None:
            yield f"the reference is {reference}, which is no variant of this run"
            return
        theirs, wanted = _whole(other), dict(has or {})
        if same is not None:
            gone = tuple(key for key, value in same.items() if value is None)
            wanted = {k: v for k, v in _whole(cell).items() if not (gone and k.startswith(gone))}
            wanted |= {key: value for key, value in same.items() if value is not None}
        for key in sorted(wanted if same is None else wanted.keys() | theirs.keys()):
            own, expected = theirs.get(key), wanted.get(key)
            if not _same(own, expected):
                yield (
                    f"the reference, {other.variant}, has {key} {_said(own)} where the table's has "
                    f"{_said(expected)}"
                )


@cache
def _protocols() -> Mapping[str, Any]:
    from response_tuning.report import PUBLISHED_FOLDER

    content: Mapping[str, Any] = yaml_text.read(PUBLISHED_FOLDER / "tables.yaml")
    return content


def _plain(base: str) -> str:
    """Return the name of a base without its owner and the ending of its converted form."""
    return Path(base).name.casefold().removesuffix("-hf")


def _is_of(base: str, name: str) -> bool:
    """Say whether a base is the published one: by its name, and on the hub by its owner, too."""
    owner = _protocols()["owners"][name.partition("-")[0]]
    is_theirs = _is_local(base) or base.rpartition("/")[0] in ("", owner)
    return is_theirs and _plain(base) == _plain(name)


def _is_local(base: str) -> bool:
    """Say whether a base is a folder, which need not be here any more, and no name on the hub."""
    return Path(base).exists() or base.startswith((".", "/", "~")) or base.count("/") > 1


def _said_base(base: str) -> str:
    return Path(base).name if _is_local(base) else base


def _data_name(source: str) -> str:
    """Return the name of a dataset as the tables have it: ``lima`` also for ``GAIR/lima``.

    Any other dataset keeps its owner or folder, so that ``somebody/lima`` is not the paper's.
    """
    from response_tuning.data.sources import DATASETS

    name = Path(source).name.casefold()
    is_home = name in DATASETS.names() and DATASETS.get(name).hub_id == source
    return name if is_home else source


def _and_refusals(count: int | None) -> str:
    return f" with {count} refusals" if count else ""


def _named(judge: object) -> str:
    return "people rated" if judge == PEOPLE else str(judge)


def _flat(cell: Cell) -> Flat:
    """Return the settings of a cell that are not the defaults."""
    return _settings(cell, exclude_defaults=True)


def _whole(cell: Cell) -> Flat:
    """Return all settings of a cell that its model depends on, and its objective."""
    found = _settings(cell, exclude_defaults=False)
    kept = {key: value for key, value in found.items() if not _is_free(key)}
    if cell.data is not None:
        kept |= {
            "data.source": cell.data.source,
            "data.mixture.refusals": cell.data.mixture.refusals,
        }
    return kept | {"finetune.objective": cell.finetune.objective if cell.tuned else UNTUNED}


def _settings(cell: Cell, *, exclude_defaults: bool) -> Flat:
    def dumped(config: DataConfig | FinetuneConfig | GenerateConfig | None) -> Flat:
        return config.model_dump(mode="json", exclude_defaults=exclude_defaults) if config else {}

    finetune = dumped(cell.finetune)
    template = finetune.get("template", "tulu")
    if not cell.tuned:  # it depends on nothing but its template
        finetune = {"template": cell.generate.template or template}
    data = dumped(cell.data)
    if cell.data is not None and not cell.data.mixture.refusals:
        data.pop("mixture", None)  # without refusals, its other settings say nothing
    sections = {"finetune": finetune, "data": data, "generate": dumped(cell.generate)}
    return dict(_flattened({name: part for name, part in sections.items() if part}))


def _flattened(values: Mapping[str, Any], section: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flattened(value, f"{section}{key}.")
        else:
            yield f"{section}{key}", value


@cache
def _defaults() -> Flat:
    parts = {
        "finetune": FinetuneConfig(base_model="-"),
        "data": DataConfig(source="-"),
        "generate": GenerateConfig(),
    }
    return dict(_flattened({name: part.model_dump(mode="json") for name, part in parts.items()}))


def _unlike(flat: Flat, expected: Flat) -> list[str]:
    """Return a sentence for each setting that differs from a table's."""
    found = []
    for key in sorted(flat.keys() | expected.keys()):
        default = _defaults().get(key)
        own, wanted = flat.get(key, default), expected.get(key, default)
        if not _is_free(key) and not _same(own, wanted):
            found.append(f"{key} is {_said(own)}, and {_said(wanted)} in the table")
    return found


def _is_free(key: str) -> bool:
    return any(fnmatch(key, pattern) for pattern in _FREE)


def _same(own: object, wanted: object) -> bool:
    if wanted == "any" or own == wanted:
        return True
    if isinstance(own, str) and isinstance(wanted, str):
        return Path(own).name.casefold() == wanted.casefold()
    try:
        return float(str(own)) == float(str(wanted))  # YAML reads 1e-5 as text
    except ValueError:
        return False


def _said(value: object) -> str:
    return "not set" if value is None else str(value)
