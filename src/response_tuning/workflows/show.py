"""``rtune show``: which tokens of a source, or of a run, carry loss."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.artifacts import (
    read_json,
)
from response_tuning.configs import DataConfig, FinetuneConfig
from response_tuning.folders import page_at
from response_tuning.terminal import quiet_libraries
from response_tuning.validation import build
from response_tuning.workflows.data import DATA, run_data
from response_tuning.workflows.exported_model import cell_of
from response_tuning.workflows.refine import unrefined

if TYPE_CHECKING:
    from rich.console import Console


def show_data(
    config: FinetuneConfig,
    data: Path,
    console: "Console",
    *,
    rows: int = 5,
    html: Path | None = None,
    jsonl: bool = False,
) -> None:
    """Show the tokens that ``config`` trains on: in the terminal, as a page, or as JSON lines."""
    from response_tuning.data.steps.personal import kinds_in
    from response_tuning.finetune import base, dataset, show
    from response_tuning.templates import Chat

    chat = Chat(base.load_tokenizer(config))
    # A generator: rows are encoded as they are printed, so JSON lines start at once.
    entries = show.entries(dataset.rows(config, chat, dataset.read_examples(data)), data)
    if jsonl:
        for line in show.as_jsonl(entries):
            print(line)  # noqa: T201 - this is the output, not a message about it
        return
    view = show.overview(entries, data, rows)
    if html is None:
        show.print_overview(view, chat, console)
    else:
        show.write_html(view, chat, html, _title(config, data), kinds_in)
        console.print(f"wrote {html}", highlight=False, soft_wrap=True)


def _title(config: FinetuneConfig, data: Path) -> str:
    source = read_json(data / "audit.json", "source")["source"]
    return f"{config.objective}, {Path(source['name']).name}"


def show_file(
    data: DataConfig,
    config: FinetuneConfig,
    console: "Console",
    *,
    tokenizer_alone: bool = False,
    **how: "int | Path | bool | None",
) -> None:
    """Show the tokens that a source becomes under ``config``; only a page is written.

    With ``tokenizer_alone`` there is no model, so the window is not limited to its positions.
    """
    from response_tuning.finetune.base import fitted

    quiet_libraries()
    if not tokenizer_alone:
        config = fitted(config)
    page = how.get("html")
    with (
        page_at(page if isinstance(page, Path) else None, data, config),
        tempfile.TemporaryDirectory() as folder,
    ):
        run_data(unrefined(data), Path(folder))
        show_data(config, Path(folder), console, **how)  # type: ignore[arg-type]


def model_folder(what: str) -> Path | None:
    """Return the folder of the tuned model that ``what`` names; None: it is a source of data.

    Raises:
        ConfigError: it holds the models of a recipe, which are several.
    """
    cell = cell_of(Path(what))
    run = cell / "finetune" if cell else Path(what)
    return run if (run / "manifest.json").exists() else None


def show_run(run: Path, console: "Console", **how: "int | Path | bool | None") -> None:
    """Show the tokens that a run trained on, by its own tokenizer and settings.

    Raises:
        DataError: ``run`` holds no manifest.
    """
    from response_tuning.finetune.run_folder import training_folder

    quiet_libraries()
    settings = read_json(run / "manifest.json", "settings")["settings"]
    config = build(FinetuneConfig, settings, str(run / "manifest.json"))
    if (run / "tokenizer_config.json").exists():
        config = config.model_copy(update={"base_model": str(run), "template": "native"})
    # In a run of a recipe, the data are beside the model, in the folder of the cell.
    own = training_folder(run) / DATA
    data = own if own.exists() else run.parent / DATA
    page = how.get("html")
    with page_at(page if isinstance(page, Path) else None, run):
        show_data(config, data, console, **how)  # type: ignore[arg-type]
