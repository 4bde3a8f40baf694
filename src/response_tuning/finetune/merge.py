"""An adapter becomes a whole model that any server can load."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning.artifacts import read_json, write_json, written_aside
from response_tuning.configs import FinetuneConfig
from response_tuning.finetune.base import load_model, weight_type
from response_tuning.finetune.card import model_card
from response_tuning.finetune.folder import MANIFEST, move_into
from response_tuning.models import loading

if TYPE_CHECKING:
    from rich.console import Console

ADAPTER = "adapter"
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def merge_adapter(out: Path, console: "Console") -> None:
    """Merge the adapter in ``out`` into its base; ``out`` then holds the whole model.

    The adapter itself is kept in ``out/adapter``. The manifest records what it was merged into:
    with QLoRA that is the base in bfloat16, not the 4-bit weights that it was trained against.
    Does nothing when ``out`` is merged already.
    """
    if not (out / _ADAPTER_FILES[0]).exists():
        return
    manifest = read_json(out / MANIFEST)
    config = FinetuneConfig.model_validate(manifest["settings"])
    precise = config.model_copy(update={"method": "lora"})
    base: Any = load_model(precise)
    model = loading.load_adapter(base, out)
    with loading.explained(out, "the adapter cannot be merged"):
        merged = model.merge_and_unload(safe_merge=True)
    partial = out / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    merged.save_pretrained(partial)
    # The run's own generation config knows the stop token.
    (partial / "generation_config.json").unlink(missing_ok=True)
    (out / ADAPTER).mkdir(exist_ok=True)
    for name in reversed(_ADAPTER_FILES):
        shutil.copy2(out / name, out / ADAPTER / name)
    move_into(partial, out)
    for name in _ADAPTER_FILES:
        (out / name).unlink()
    manifest["merged_into"] = {
        "base": manifest["base"],
        "dtype": str(weight_type(precise)).removeprefix("torch."),
        "trained_against": "4-bit NF4" if config.method == "qlora" else "the same weights",
    }
    with written_aside(out / "README.md") as card:
        card.write(model_card(config, manifest))
    write_json(out / MANIFEST, manifest)
    console.print(
        f"{out}: now a whole model, with the adapter merged into a copy of {config.base_model}; "
        f"the adapter alone is in {out / ADAPTER}",
        highlight=False,
        soft_wrap=True,
    )
