"""An adapter becomes a whole model that any server can load."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning import seals
from response_tuning.artifacts import sync_folder, write_json, written_aside
from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ConfigError
from response_tuning.finetune.base import (
    check_bitsandbytes,
    load_dequantized,
    load_model,
    weight_type,
)
from response_tuning.finetune.manifest import FINISHED, MERGING, check_model, read_manifest
from response_tuning.finetune.model_card import model_card
from response_tuning.finetune.run_folder import CARD, MANIFEST, PARTIAL, move_into
from response_tuning.models import loading
from response_tuning.validation import build

if TYPE_CHECKING:
    from rich.console import Console


ADAPTER = "adapter"
_WEIGHTS = {"base": "its own weights", "nf4": "its 4-bit NF4 weights, dequantized"}
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def merge_adapter(out: Path, console: "Console", into: str) -> None:
    """Merge the adapter in ``out`` into its base; ``out`` then holds the whole model.

    The adapter itself is kept in ``out/adapter``. The manifest records what it was merged into:
    ``base`` is the base in its own precision, and with QLoRA not the 4-bit weights that training
    used; ``nf4`` is those, dequantized. Does nothing if ``out`` is already merged so; finishes a
    merge that a kill interrupted.

    Raises:
        ConfigError: it is merged into other weights, or bitsandbytes is missing for ``nf4``.
    """
    manifest = read_manifest(out)
    if not (out / _ADAPTER_FILES[0]).exists() and manifest["status"] != MERGING:
        _check_same(manifest, into, out)
        return
    if manifest["status"] != MERGING and into != "base":
        manifest["settings"]["merge_into"] = into
    config = build(FinetuneConfig, manifest["settings"], str(out / MANIFEST))
    if config.merge_into == "nf4":
        check_bitsandbytes()
    precise = config.model_copy(update={"method": "lora"})
    # From here on, a kill leaves files of both models; the status makes the next command go on.
    write_json(out / MANIFEST, manifest | {"status": MERGING})
    if (out / _ADAPTER_FILES[0]).exists():
        _merge(precise, manifest, out)
    for name in _ADAPTER_FILES:
        (out / name).unlink(missing_ok=True)
    manifest["merged_into"] = {
        "base": manifest["base"],
        "dtype": str(weight_type(precise)).removeprefix("torch."),
        "trained_against": "4-bit NF4" if config.method == "qlora" else "the same weights",
        "weights": _WEIGHTS[config.merge_into],
    }
    with written_aside(out / CARD) as card:
        card.write(model_card(config, manifest))
    if "files" in manifest:
        manifest["files"] = _files(out, manifest["files"])
    write_json(out / MANIFEST, manifest | {"status": FINISHED})
    console.print(
        f"{out}: now a whole model, with the adapter merged into a copy of {config.base_model}"
        f"{_as_what(manifest['merged_into'])}; the adapter alone is in {out / ADAPTER}",
        highlight=False,
        soft_wrap=True,
    )


def _as_what(merged_into: dict[str, str]) -> str:
    """Return what a user should know about the weights: only where they are not those of training.

    QLoRA's adapter has learned to correct the rounding of the 4-bit weights as well, and in other
    weights that is not there.
    """
    if merged_into["trained_against"] == "the same weights":
        return ""
    return (
        f" ({merged_into['weights']}, in {merged_into['dtype']}; it was trained against "
        f"{merged_into['trained_against']})"
    )


def _check_same(manifest: dict[str, Any], into: str, out: Path) -> None:
    merged_into = manifest.get("merged_into")
    if merged_into is None:
        return
    before = merged_into.get("weights", _WEIGHTS["base"])
    if before != _WEIGHTS[into]:
        raise ConfigError(
            f"{out}: the adapter is merged into {before} already; choose another --out, or merge "
            f"{out / ADAPTER} yourself"
        )


def is_merging(out: Path) -> bool:
    """Whether a kill interrupted a merge."""
    return bool(read_manifest(out)["status"] == MERGING)


def _merge(config: FinetuneConfig, manifest: dict[str, Any], out: Path) -> None:
    """Write the merged weights to ``out`` and the adapter to a folder in it."""
    files = manifest.get("files", {})
    adapter = {name: files[name] for name in _ADAPTER_FILES if name in files}
    check_model(out, adapter, seals.flaw(out, adapter))
    base: Any = (load_dequantized if config.merge_into == "nf4" else load_model)(config)
    model = loading.load_adapter(base, out)
    with loading.explained(out, "the adapter cannot be merged"):
        merged = model.merge_and_unload(safe_merge=True)
    partial = out / PARTIAL
    shutil.rmtree(partial, ignore_errors=True)
    with seals.saving(partial):
        merged.save_pretrained(partial)
        # The run's own generation config knows the stop token.
        (partial / "generation_config.json").unlink(missing_ok=True)
        seals.sums(partial)  # on the disk before the adapter goes
    (out / ADAPTER).mkdir(exist_ok=True)
    for name in reversed(_ADAPTER_FILES):
        shutil.copy2(out / name, out / ADAPTER / name)
    seals.sums(out / ADAPTER)
    sync_folder(out / ADAPTER)
    move_into(partial, out)


def _files(out: Path, before: seals.Sums) -> seals.Sums:
    """Measure the model's files after the merge."""
    merged = {path.name for path in out.glob("model*.safetensors*")} | {"config.json"}
    kept = {f"{ADAPTER}/{name}" for name in _ADAPTER_FILES}
    return seals.sums(out, sorted((before.keys() | merged | kept) - {*_ADAPTER_FILES}))
