"""A model or an adapter becomes a whole folder of safetensors."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning import seals
from response_tuning.artifacts import read_json
from response_tuning.errors import ConfigError
from response_tuning.models import files, inference, loading
from response_tuning.models.location import ModelFolder, locate_base

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")


def write_whole(model: ModelFolder, out: Path) -> dict[str, Any]:
    """Write a whole model to ``out``; return what an adapter was merged into, empty for none.

    Weights of a whole model are copied bit by bit. An adapter is merged in float32 and written in
    the number format of the base's weights, or float32 where those are float16, which few tuned
    weights fit.

    Raises:
        ModelError: the model, or an adapter's base, cannot be loaded.
    """
    out.mkdir(parents=True)
    if files.kind(model.path) != files.ADAPTER_CONFIG:
        for file in files.files(model.path):
            _copy(file, out)
        _copy_licences(model.path, out)
        return {}
    base = locate_base(model)
    merged = _merged(model, base, out)
    tokenizer = model.path if files.has_tokenizer(model.path) else base.path
    for pattern in (*files.TOKENIZER, "special_tokens_map.json", "chat_template*"):
        for file in tokenizer.glob(pattern):
            _copy(file, out)
    if (model.path / files.GENERATION_CONFIG).is_file():  # has the stop token
        _copy(model.path / files.GENERATION_CONFIG, out)
    _copy_licences(base.path, out)
    return merged


def copy_adapter(model: ModelFolder, out: Path, base: str | None) -> None:
    """Write an adapter alone to ``out``, with its tokenizer; it names its base ``base`` if given.

    Raises:
        ConfigError: the model is no adapter.
    """
    if files.kind(model.path) != files.ADAPTER_CONFIG:
        raise ConfigError(
            f"{model.name}: a whole model, so there is no adapter; leave --adapter out"
        )
    out.mkdir(parents=True)
    for file in files.files(model.path):
        _copy(file, out)
    if base is not None:
        settings = read_json(out / files.ADAPTER_CONFIG)
        settings["base_model_name_or_path"] = base
        text = json.dumps(settings, indent=2)
        (out / files.ADAPTER_CONFIG).write_text(text, encoding="utf-8")


def _merged(model: ModelFolder, base: ModelFolder, out: Path) -> dict[str, Any]:
    import torch

    stored = getattr(loading.load_config(base), "dtype", None) or torch.float32
    kind = torch.float32 if stored == torch.float16 else stored
    weights = loading.load_weights(base, dtype=torch.float32, device_map="cpu")
    adapted = loading.load_adapter(weights, model.path)
    with loading.explained(model.name, "the adapter cannot be merged"):
        whole: PreTrainedModel = adapted.merge_and_unload(safe_merge=True).to(kind)
    inference.reset_generation_config(whole)
    with seals.saving(out):
        whole.save_pretrained(out)
    seals.apply_umask(out)
    return {"base": base.name, "dtype": str(kind).removeprefix("torch.")}


def _copy(file: Path, out: Path) -> None:
    shutil.copyfile(file, out / file.name)  # without the mode: the umask decides


def _copy_licences(base: Path, out: Path) -> None:
    for pattern in _LICENCES:
        for file in base.glob(pattern):
            if file.is_file():
                _copy(file, out)
