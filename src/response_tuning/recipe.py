"""A recipe for one tuned model: a preset, a file, flags and settings laid over each other."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from response_tuning import yaml_text
from response_tuning.configs import (
    Config,
    DataConfig,
    FinetuneConfig,
    build,
    merged,
    read_recipe,
)
from response_tuning.errors import ConfigError
from response_tuning.registry import unknown


class Recipe(Config):
    """One experiment: a section for each stage that it uses."""

    data: DataConfig
    finetune: FinetuneConfig


# The paper's section 4.1 and its released settings (QLoRA on one GPU); r, alpha, dropout and the
# constant schedule without warm-up are as published.
PAPER: dict[str, Any] = {
    "method": "qlora",
    "lora_r": 64,
    "lora_alpha": 16,
    "lora_dropout": 0.1,
    "learning_rate": 1e-4,
    "scheduler": "constant",
    "optimizer": "paged_adamw_32bit",
    "max_grad_norm": 0.3,
    "epochs": 10,
    "examples_per_step": 64,
    "window": 2048,
    "tokens_per_micro_batch": 16384,
    "gradient_checkpointing": True,
    "precision": "bfloat16",
    "train_on_final_newline": False,
    "merge": True,
}

PRESETS: dict[str, dict[str, Any]] = {"paper": PAPER, "small": {}}


def make_recipe(
    path: Path | None,
    preset: str | None,
    flags: dict[str, dict[str, Any]],
    settings: Sequence[str],
) -> Recipe:
    """Lay a preset, a recipe file, flags and ``KEY=VALUE`` settings over each other, in this order.

    What one of them does not say is as the one beneath it says, in sections of sections too. The
    recipe may name the preset under ``preset:``; the argument overrides it.

    Raises:
        ConfigError: a name is unknown, or a value is impossible.
    """
    expected = "SECTION.KEY=VALUE, such as finetune.lora_r=8"
    if wrong := [text for text in settings if "." not in text.partition("=")[0]]:
        raise ConfigError(f"--set {wrong[0]}: expected {expected}")
    laid = yaml_text.with_settings({}, settings, expected)
    recipe = read_recipe(path) if path else {}
    file = f"{path}: " if path else ""
    named = recipe.pop("preset", "small")
    layers = [
        ("", {"finetune": _preset(preset, "") if preset else _preset(named, file)}),
        (file, recipe),
        ("", flags),
        ("--set: ", laid),
    ]
    sections: dict[str, dict[str, Any]] = {"data": {}, "finetune": {}}
    origins: dict[str, dict[str, str]] = {"data": {}, "finetune": {}}
    for origin, layer in layers:
        for name, values in layer.items():
            if name not in sections:
                raise ConfigError(f"{origin}{unknown('section', str(name), [*sections])}")
            if not isinstance(values, dict):
                raise ConfigError(f"{origin}{name}: expected settings, found {values!r}")
            sections[name] = merged(sections[name], values)
            origins[name] |= dict.fromkeys(_keys(values), f"{origin}{name}")
    said_here = {**flags.get("finetune", {}), **laid.get("finetune", {})}
    # A recipe for an adapter may be tried with --method full.
    said = said_here if "method" in said_here else {**recipe.get("finetune", {}), **said_here}
    check_method(sections["finetune"], said, f"{file}finetune")
    _check_mixture(sections["data"], origins["data"], file, [flags, laid])
    return Recipe(
        data=build(DataConfig, sections["data"], f"{file}data", origins["data"]),
        finetune=build(
            FinetuneConfig, sections["finetune"], f"{file}finetune", origins["finetune"]
        ),
    )


def check_method(settings: Mapping[str, Any], given: Iterable[str], where: str) -> None:
    """Refuse settings of an adapter, among those ``given``, where the whole model is tuned.

    Raises:
        ConfigError: one line that names the first of them.
    """
    if settings.get("method") == "full":
        for key in sorted(given):
            if key.startswith("lora_"):
                raise ConfigError(
                    f"{where}: {key}: has no effect with method 'full', which has no adapter; "
                    "remove it"
                )


def idle_mixture(data: Mapping[str, Any]) -> str | None:
    """Return the first setting of ``data.mixture`` that has no effect, for it mixes in nothing."""
    mixture = data.get("mixture")
    if not isinstance(mixture, Mapping) or mixture.get("refusals"):
        return None
    return min((str(key) for key in mixture.keys() - {"refusals"}), default=None)


def no_refusals(place: str, key: str) -> ConfigError:
    """Return the error for what ``idle_mixture`` found."""
    return ConfigError(
        f"{place}.mixture: {key}: has no effect with 0 refusals; set mixture.refusals, or remove it"
    )


def _check_mixture(
    data: Mapping[str, Any],
    origins: Mapping[str, str],
    file: str,
    over: Sequence[Mapping[str, Mapping[str, Any]]],
) -> None:
    key = idle_mixture(data)
    if key is None:
        return
    mixtures = [layer.get("data", {}).get("mixture") or {} for layer in over]
    # A recipe that mixes refusals in may be tried with 0 of them.
    if any("refusals" in mixture for mixture in mixtures):
        key = idle_mixture({"mixture": merged(*mixtures)})
    if key is not None:
        raise no_refusals(origins.get(f"mixture.{key}", f"{file}data"), key)


def _preset(name: object, origin: str) -> dict[str, Any]:
    if str(name) not in PRESETS:
        raise ConfigError(f"{origin}{unknown('preset', str(name), sorted(PRESETS))}")
    return PRESETS[str(name)]


def _keys(values: Mapping[str, Any], section: str = "") -> Iterator[str]:
    """Yield every key, those of sections inside as ``section.key``."""
    for key, value in values.items():
        yield f"{section}{key}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{section}{key}.")
