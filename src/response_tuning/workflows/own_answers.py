"""What ``rtune finetune`` does for the user's own answers: holds some out, says what is next."""

from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.artifacts import read_json
from response_tuning.configs import FinetuneConfig
from response_tuning.recipe import Recipe

if TYPE_CHECKING:
    from rich.console import Console

HELD_OUT = 0.1
"""Share of your own answers that is held out where nothing says otherwise."""
FEWEST_TO_HOLD_OUT = 40
"""Fewest examples of which some are held out: fewer than four tell nothing."""


def with_held_out(recipe: Recipe, data: Path, out: Path | None) -> FinetuneConfig:
    """Return the settings of tuning, with a share to hold out of the user's own answers.

    A run that began without one goes on without.
    """
    from response_tuning.finetune.manifest import read_manifest
    from response_tuning.finetune.run_folder import MANIFEST

    config = recipe.finetune
    if "eval_fraction" in config.model_fields_set or not _is_own(recipe.data.source):
        return config
    if out is not None and (out / MANIFEST).exists():
        share = read_manifest(out)["settings"].get("eval_fraction", 0.0)
    else:
        examples = read_json(data / "audit.json", "examples")["examples"]
        share = HELD_OUT if examples >= FEWEST_TO_HOLD_OUT else 0.0
    return config.model_copy(update={"eval_fraction": share})


def _is_own(source: str) -> bool:
    """Whether a source is a file or folder of the user's, and no named dataset."""
    from response_tuning.data import DATASETS

    return source not in DATASETS.names() and Path(source).exists()


def print_next(out: Path, console: "Console") -> None:
    """Print where the model is, and what to type next."""
    from response_tuning.models import files

    kind = "adapter" if files.kind(out) == files.ADAPTER_CONFIG else "model"
    size = sum(file.stat().st_size for file in out.iterdir() if file.is_file())
    for line in (
        f"wrote {out}: the {kind}, {size / 1e6:,.1f} MB",
        f"next: rtune chat {out}",
        f"      rtune export {out} --to ollama --install-converter",
    ):
        console.print(line, highlight=False, soft_wrap=True)
