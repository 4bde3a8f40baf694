"""What ``rtune export`` knows about a model: where it came from, and prompts to compare it on."""

import csv
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from response_tuning.artifacts import Completion, Example, Message, read_json, read_jsonl
from response_tuning.errors import ConfigError, DataError, ModelError
from response_tuning.models import files
from response_tuning.models.location import ModelFolder, is_shipped, locate, locate_base
from response_tuning.serve.export.card import Measured

_SHOWN_SETTINGS = ("objective", "method", "learning_rate", "epochs", "examples_per_step", "window")
_SHORT_WORDS = 20


@dataclass(frozen=True)
class TunedModel:
    """Where a model came from."""

    model: ModelFolder
    manifest: dict[str, Any]
    cell: Path | None
    """The folder of the cell, if the model is of a run of a recipe."""

    @property
    def title(self) -> str:
        """A name for files."""
        folder = self.cell or self.model.path
        if self.cell:
            return f"{folder.parent.name}-{folder.name}"
        return Path(self.model.name).name or folder.resolve().name

    @property
    def base(self) -> str:
        """The base as the run's settings name it; empty if unknown."""
        return str(self.manifest.get("settings", {}).get("base_model", ""))


def cell_of(path: Path) -> Path | None:
    """Return the cell that ``path`` is, or whose model it is; None: it is no cell.

    Raises:
        ConfigError: it is the folder of a run of a recipe, or of a variant, which has several.
    """
    if (path / "finetune" / "manifest.json").is_file():
        return path
    if path.name == "finetune" and path.parent.name.startswith("seed-"):
        return path.parent
    for pattern in ("seed-*", "*/seed-*"):
        if cells := sorted(path.glob(f"{pattern}/finetune/manifest.json")):
            raise ConfigError(
                f"{path}: holds a run of a recipe; give one of its cells, such as "
                f"{cells[0].parents[1]}"
            )
    return None


def located(name: str) -> TunedModel:
    """Find the model that ``name`` means.

    Raises:
        ConfigError: it is the folder of a run of a recipe, which has several.
    """
    path = Path(name)
    cell = cell_of(path)
    path = cell / "finetune" if cell else path
    model = locate(str(path) if cell else name)
    own = model.path / "manifest.json"
    found = read_json(own) if own.is_file() else {}
    if found.get("status", "finished") != "finished":
        raise ConfigError(f"{name}: the run has not finished; run the same rtune finetune again")
    return TunedModel(model, found, cell)


def prompts(run: TunedModel, file: Path | None) -> Iterator[list[Message]]:
    """Yield prompts of ``file``, or of the cell's benchmarks and then of the training rows."""
    from response_tuning.data import read_prompts
    from response_tuning.finetune.run_folder import training_folder

    if file is not None:
        yield from ([*request.prompt] for request in read_prompts(file))
        return
    said = sorted((run.cell / "generate").glob("*.jsonl")) if run.cell else []
    readers = [iter(read_jsonl(path, Completion)) for path in said]
    while readers:  # in turn, so that few prompts are of every benchmark
        for reader in [*readers]:
            completion = next(reader, None)
            if completion is None:
                readers.remove(reader)
            else:
                yield [*completion.prompt]
    rows = (run.cell or training_folder(run.model.path)) / "data" / "examples.jsonl"
    for example in read_jsonl(rows, Example) if rows.is_file() else ():
        # Without an instruction, the response's first words are a message in the same words.
        text = example.instruction or " ".join(example.response.split()[:_SHORT_WORDS])
        yield [*example.earlier, Message(role="user", content=text)]


def bases(run: TunedModel) -> list[Path]:
    """Return folders that may hold the base's tokenizer."""
    bases = [run.model.path]
    with suppress(ModelError, DataError):
        if files.kind(run.model.path) == files.ADAPTER_CONFIG:
            bases.append(locate_base(run.model).path)
        elif run.base:
            bases.append(locate(run.base, weights=False).path)
    return bases


def base_name(run: TunedModel, given: str | None) -> tuple[str, bool]:
    """Return the base's hub id, or words for it: a path means nothing to others."""
    if given:
        return given, True
    if is_shipped(run.base):
        return "the miniature of response-tuning", False
    recorded = str(run.manifest.get("base", ""))
    if recorded and not recorded.startswith(("local@", "sha256:", "gguf@")):
        return recorded.rpartition("@")[0], True
    if not run.base and run.model.commit:
        return run.model.name, True
    return f"a local model ({recorded or run.model.identity})", False


def training(run: TunedModel) -> dict[str, Any]:
    """Return the version, the objective and the settings of the training; empty if unknown."""
    if "settings" not in run.manifest:
        return {}
    settings = run.manifest["settings"]
    shown = {name: settings[name] for name in _SHOWN_SETTINGS if name in settings}
    audit = run.manifest.get("audit", {})
    shown |= {"template": Path(str(settings.get("template"))).name}
    shown |= {"examples": audit.get("examples"), "optimizer steps": run.manifest.get("steps")}
    stop = run.manifest.get("stop") or {}
    return {
        "version": run.manifest["packages"]["response-tuning"],
        "objective": settings["objective"],
        "settings": shown,
        "stop_differs": not stop.get("of_base", True),
    }


def results(run: TunedModel) -> Sequence[Measured]:
    """Return what the report of the run says about the model's variant; all seeds together."""
    path = run.cell.parents[1] / "report" / "results.csv" if run.cell else None
    if run.cell is None or path is None or not path.is_file():
        return ()
    judges = _judges(run.cell)
    with path.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["variant"] == run.cell.parent.name]
    return [
        Measured(
            row["benchmark"],
            row["metric"],
            float(row["value"]),
            float(row["low"]),
            float(row["high"]),
            int(row["n"]),
            int(row["seeds"]),
            judges.get(row["benchmark"], "rules"),
        )
        for row in rows
    ]


def _judges(cell: Path) -> dict[str, str]:
    path = cell / "grade" / "manifest.json"
    found = {}
    for name, record in (read_json(path) if path.is_file() else {}).items():
        judge = record.get("judge") if isinstance(record, dict) else None
        if judge:
            model = Path(str(judge.get("model") or "")).name
            found[name] = f"{judge.get('engine')} {model}".strip()
    return found
