"""``rtune playground``: which models it opens, and what it takes from the other stages."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning.artifacts import Message, read_json
from response_tuning.configs import EngineConfig, GradeConfig
from response_tuning.errors import ConfigError, EngineError
from response_tuning.folders import locked
from response_tuning.miniature import MINIATURE
from response_tuning.redaction import redacted
from response_tuning.terminal import quiet_libraries
from response_tuning.validation import build

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.serve.playground.local import Models
    from response_tuning.serve.playground.records import PaneForm
    from response_tuning.serve.playground.session import Pane
    from response_tuning.serve.playground.votes import Vote


DEMO_RUN = Path("runs/demo")
_NAMED = re.compile(r"(\w[\w.-]{0,60})=(.+)")
_SERVED = re.compile(r"(.+?)@(https?://.+)")
_DEMO_VARIANTS = ("base", "rt", "it")
NO_KEY_VARIABLE = "RTUNE_NO_KEY"
"""A variable that is not set: no key is sent."""
FINISH_S = 5.0
"""Seconds that an answer has to be kept when the command ends: a large model's last token."""
PRESET_PROMPTS = 40
"""Prompts of a benchmark that a preset offers, evenly spread."""


class PaneSource(NamedTuple):
    """What a pane is opened from."""

    name: str
    model: str
    template: str | None = None
    """None: the model's own."""
    url: str | None = None
    """Address of the server that has the model; None: it is loaded here."""


class PlaygroundSettings(NamedTuple):
    """What the command line says about a playground."""

    models: Sequence[str] = ()
    """``[NAME=]MODEL`` or ``[NAME=]MODEL@URL``; none: the demo's run, or the shipped miniature."""
    template: str | None = None
    """Chat template of the models that have none."""
    out: Path = Path("runs/playground")
    """Folder that keeps answers and votes."""
    benchmarks: GradeConfig = GradeConfig()
    """Where benchmarks are read from, for the presets."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key of the servers."""
    port: int = 0
    """0 is any free port."""


def run_playground(settings: PlaygroundSettings, console: "Console") -> None:
    """Serve the playground until it is interrupted; the console says its address.

    Raises:
        ResponseTuningError: a model cannot be loaded, two have one name, or the port is taken.
    """
    sources = pane_sources(settings.models, settings.template)
    for source in sources:  # before the libraries, which take seconds
        console.print(f"loading {source.name}: {source.model} ...", highlight=False, soft_wrap=True)
    from response_tuning import loopback
    from response_tuning.models.inference import check_loadable
    from response_tuning.serve.playground.app import playground_app
    from response_tuning.serve.playground.local import Models
    from response_tuning.serve.playground.session import Playground

    for source in sources:  # all, before the first is loaded
        if source.url is None:
            check_loadable(source.model)
    quiet_libraries()
    loaded, out = Models(), settings.out
    with locked(out):
        panes = [_opened(source, settings.key_variable, loaded) for source in sources]
        playground = Playground(
            panes,
            out,
            open_pane=lambda form: _open(form, settings, loaded),
            presets=_presets(settings.benchmarks),
            voted=partial(write_scores, reference=panes[0].name, out=out),
            key_variable=settings.key_variable,
        )
        loopback.serve(
            playground_app(playground),
            settings.port,
            lambda address: console.print(
                f"{address} (answers and votes go to {out}; Ctrl-C ends)",
                highlight=False,
                soft_wrap=True,
            ),
            playground.stop,
        )
        playground.finish(FINISH_S)


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
        named = _NAMED.fullmatch(given)
        name, model = (named[1], named[2]) if named else ("", given)
        served = _SERVED.fullmatch(model)
        if served:
            sources.append(PaneSource(name or _named(served[1], sources), served[1], url=served[2]))
        elif "experiment" in _manifest(Path(model)):
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
    last = next((part for part in reversed(parts) if not part.startswith("seed-")), model)
    name = re.sub(r"[^\w.-]+", "-", last).strip("-.")[:50] or "model"
    taken = {source.name for source in sources}
    return name if name not in taken else f"{name}-{len(taken) + 1}"


def _open(form: "PaneForm", settings: PlaygroundSettings, models: "Models") -> "Pane":
    """Open the pane that the page's form describes.

    Raises:
        ResponseTuningError: it cannot be opened.
    """
    name = form.name or _named(form.model, ())
    source = PaneSource(name, form.model, settings.template, form.url or None)
    # A server that the form names gets the key only if the form says so.
    variable = settings.key_variable if form.send_key else NO_KEY_VARIABLE
    try:
        return _opened(source, variable, models)
    except EngineError as error:
        if source.url and not form.send_key:
            raise ConfigError(
                f"{redacted(source.url)}: a server that is not on this machine needs a key; tick "
                f"the box that sends it the one in {settings.key_variable}"
            ) from error
        raise


def _opened(source: PaneSource, key_variable: str, models: "Models") -> "Pane":
    from response_tuning.serve.playground.local import LocalPane
    from response_tuning.workflows.server_pane import ServerPane

    if source.url is None:
        return LocalPane(source.name, source.model, source.template, models)
    served = {"model": source.model, "base_url": source.url, "api_key_env": key_variable}
    return ServerPane(source.name, build(EngineConfig, served, source.name))


def write_scores(votes: "Sequence[Vote]", reference: str, out: Path) -> None:
    """Write what votes say as the scores that ``rtune rate`` writes, in the layout of a run."""
    from response_tuning.grade.raters.votes import RatedVote, write_votes

    write_votes([RatedVote(*_rated(vote)) for vote in votes], reference, out)


def _rated(vote: "Vote") -> tuple[str, str, tuple[str, ...], str]:
    panes = tuple(candidate.pane for candidate in vote.candidates)
    choice = panes[vote.choice] if isinstance(vote.choice, int) else vote.choice
    return vote.rater, vote.item_id, panes, choice


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
