"""``rtune playground``: which models it opens, and what it takes from the other stages."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning.artifacts import Message, read_json
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError
from response_tuning.folders import locked
from response_tuning.miniature import MINIATURE
from response_tuning.terminal import quiet_libraries

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.serve.playground.session import Pane


DEMO_RUN = Path("runs/demo")
_DEMO_VARIANTS = ("base", "rt", "it")
PRESET_PROMPTS = 40
"""Prompts of a benchmark that a preset offers, evenly spread."""


class PaneSource(NamedTuple):
    """What a pane is opened from."""

    name: str
    model: str
    template: str | None = None
    """None: the model's own."""


def run_playground(
    models: Sequence[str],
    template: str | None,
    out: Path,
    config: GradeConfig,
    port: int,
    console: "Console",
) -> None:
    """Serve the playground until it is interrupted.

    Args:
        models: ``[NAME=]MODEL``; none are those of the demo's run, or the shipped miniature.
        template: Chat template of the models that have none.
        out: Folder that keeps answers and votes.
        config: Where benchmarks are read from, for the presets.
        port: 0 is any free port.
        console: Says what is loaded, and the address.

    Raises:
        ResponseTuningError: a model cannot be loaded, two have one name, or the port is taken.
    """
    from response_tuning import loopback
    from response_tuning.models.inference import check_loadable
    from response_tuning.serve.playground.app import playground_app
    from response_tuning.serve.playground.local import LocalPane, Models
    from response_tuning.serve.playground.session import Playground

    sources = pane_sources(models, template)
    for source in sources:  # all, before the first is loaded
        check_loadable(source.model)
    quiet_libraries()
    loaded = Models()
    with locked(out):
        panes: list[Pane] = []
        for source in sources:
            console.print(f"loading {source.name}: {source.model} ...", highlight=False)
            panes.append(LocalPane(*source, loaded))
        playground = Playground(
            panes,
            out,
            open_pane=partial(_open, models=loaded, template=template),
            presets=_presets(config),
            voted=lambda votes: None,
        )
        loopback.serve(
            playground_app(playground),
            port,
            lambda address: console.print(
                f"{address} (answers and votes go to {out}; Ctrl-C ends)",
                highlight=False,
                soft_wrap=True,
            ),
        )


def pane_sources(models: Sequence[str], template: str | None = None) -> list[PaneSource]:
    """Return what ``[NAME=]MODEL`` arguments stand for; a run stands for some of its variants.

    Raises:
        ConfigError: a name is missing or is given twice.
    """
    if not models:
        if (DEMO_RUN / "manifest.json").exists():
            return _of_run(DEMO_RUN)
        return [PaneSource("base", MINIATURE, template or _demo_template())]
    sources: list[PaneSource] = []
    for given in models:
        name, is_named, model = given.rpartition("=")
        if is_named and not (name and model):
            raise ConfigError(f"{given}: expected NAME=MODEL")
        if "experiment" in _manifest(Path(model)):
            sources += _of_run(Path(model))
        else:
            sources.append(PaneSource(name or _named(model, sources), model, template))
    names = [source.name for source in sources]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"pane '{twice}': the name is taken; give it another: NAME=MODEL")
    return sources


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    return read_json(path) if path.is_file() else {}


def _of_run(run: Path) -> list[PaneSource]:
    """Return base, RT and IT of a run, or its first three variants, each at its first seed."""
    from response_tuning.workflows.experiment import Experiment, cells
    from response_tuning.validation import build

    experiment = build(Experiment, _manifest(run)["experiment"], str(run / "manifest.json"))
    first = {cell.variant: cell for cell in reversed(cells(experiment)) if cell.local}
    done = [
        cell
        for cell in first.values()
        if not cell.tuned or (cell.folder(run) / "finetune" / "manifest.json").exists()
    ]
    by_name = {cell.variant: cell for cell in reversed(done)}
    names = [name for name in _DEMO_VARIANTS if name in by_name] or [*by_name][:3]
    if not names:
        raise ConfigError(f"{run}: no variant of this run is tuned yet; give a model instead")
    return [
        PaneSource(name, str(cell.folder(run) / "finetune"))
        if (cell := by_name[name]).tuned
        else PaneSource(name, cell.finetune.base_model, cell.finetune.template)
        for name in names
    ]


def _demo_template() -> str:
    from response_tuning.miniature import DEMO
    from response_tuning.workflows.experiment import cells, read_experiment

    return cells(read_experiment(DEMO))[0].finetune.template


def _named(model: str, sources: Sequence[PaneSource]) -> str:
    """Return a short name for a model: of a cell's model, the variant's."""
    path = Path(model)
    parts = [part for part in path.parts if part not in ("finetune", "/")]
    name = next((part for part in reversed(parts) if not part.startswith("seed-")), model)
    taken = {source.name for source in sources}
    return name if name not in taken else f"{name}-{len(taken) + 1}"


def _open(form: Mapping[str, Any], models: Any, template: str | None) -> "Pane":  # noqa: ANN401
    from response_tuning.serve.playground.local import LocalPane

    model = str(form.get("model", "")).strip()
    if not model:
        raise ConfigError("a pane needs a model: a folder or a hub id")
    return LocalPane(str(form.get("name") or _named(model, ())), model, template, models)


def _presets(config: GradeConfig) -> dict[str, Any]:
    from response_tuning.grade import BENCHMARKS
    from response_tuning.grade.benchmark import open_lm_eval

    return {
        name: partial(_prompts, name, config)
        for name in BENCHMARKS.names()
        if open_lm_eval(name) is None
    }


def _prompts(name: str, config: GradeConfig) -> list[tuple[Message, ...]]:
    from response_tuning.grade.benchmark import open_benchmark
    from response_tuning.grade.sources import spread

    limit = config.limit or PRESET_PROMPTS
    return [item.prompt for item in spread(open_benchmark(name, config).items(), limit)]
