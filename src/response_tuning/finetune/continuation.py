"""The adapter of a finished run, with which another run goes on."""

from pathlib import Path
from typing import Any

from response_tuning.artifacts import read_json
from response_tuning.configs import FinetuneConfig
from response_tuning.errors import ConfigError, ModelError
from response_tuning.finetune import base
from response_tuning.finetune.manifest import known_as
from response_tuning.models import files, loading
from response_tuning.models.location import ModelFolder, locate


def continued_adapter(config: FinetuneConfig) -> ModelFolder | None:
    """Return the adapter that training goes on with; None where it starts a fresh one, or has none.

    Raises:
        ConfigError: it is an adapter of another base or shape than the settings say.
    """
    if config.continue_from is None:
        return None
    adapter = locate(str(config.continue_from))
    if files.kind(adapter.path) != files.ADAPTER_CONFIG:
        return None
    settings = read_json(adapter.path / files.ADAPTER_CONFIG)
    shape = {"lora_r": "r", "lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout"}
    if config.method == "full":
        raise ConfigError(
            f"{config.continue_from}: an adapter, and --method full tunes a whole model; keep its "
            "method, or merge it first (--merge with the command that made it)"
        )
    for setting, key in shape.items():
        if settings.get(key) != getattr(config, setting):
            raise ConfigError(
                f"{config.continue_from}: its adapter has {setting} {settings.get(key)}, and this "
                f"run {getattr(config, setting)}; remove finetune.{setting}"
            )
    if config.random_init:
        raise ConfigError("random_init starts from fresh weights; remove it, or --continue-from")
    return adapter


def load_continued(adapted: Any, config: FinetuneConfig) -> None:  # noqa: ANN401 - PEFT's
    """Load the weights of the adapter that is continued, if any, into a fresh one.

    Raises:
        ConfigError: it has another shape than the settings say.
        ModelError: some of its weights are missing, or have no place.
    """
    adapter = continued_adapter(config)
    if adapter is None:
        return
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    folder = adapter.path
    files.check_adapter(folder)
    with loading.explained(folder, "its adapter does not fit the base"):
        loaded: Any = set_peft_model_state_dict(adapted, load_file(folder / files.ADAPTER_WEIGHTS))
    missing = [key for key in loaded.missing_keys if "lora_" in key]
    if wrong := [*missing, *loaded.unexpected_keys]:
        raise ModelError(
            f"{folder}: {len(wrong)} weights of its adapter are missing or have no place in the "
            f"base, such as {wrong[0]}"
        )


def start_of(config: FinetuneConfig, out: Path) -> str:
    """Return the identity of the weights that training starts from."""
    identity = known_as(base.located(config), out)
    adapter = continued_adapter(config)
    return identity if adapter is None else f"{adapter.identity}+{identity}"
