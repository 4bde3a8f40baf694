"""A recipe for one tuned model: a preset, a file, flags and settings laid over each other."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from response_tuning import yaml_text
from response_tuning.configs import (
    Config,
    DataConfig,
    FinetuneConfig,
)
from response_tuning.errors import ConfigError
from response_tuning.redaction import redacted
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


C = TypeVar("C", bound=BaseModel)


def build(
    kind: type[C], values: dict[str, Any], where: str, origins: Mapping[str, str] | None = None
) -> C:
    """Validate ``values`` as a ``kind``.

    Raises:
        ConfigError: one line naming where the value is from (``where``, unless ``origins`` holds
            another place for its key, or for the section that it is in), the key, its value and
            what is wrong.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        tried = {"bool", "constrained-int"}  # what a setting that may be "auto" was taken for
        key = ".".join(str(part) for part in first["loc"] if part not in tried)
        place = _nearest(key, origins or {}) or where
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "missing":
            flag = {"source": "--data"}.get(key, f"--{key.replace('_', '-')}")
            flags = getattr(kind, "flags", True)
            message = f"not given; name it with {flag}, or in a recipe" if flags else "missing"
        silent = first["type"] in {"missing", "value_error"}
        if first["type"] == "extra_forbidden":
            # What a key that nobody knows holds may be a secret, such as an api_key.
            silent = not isinstance(first["input"], int | float)
        got = "" if silent else f" (got {redacted(repr(first['input']))})"
        raise ConfigError(": ".join(filter(None, (place, key, message))) + got) from error


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay settings over others; a section of both keeps what the upper one does not say."""
    whole = {**under, **over}
    for key in under.keys() & over.keys():
        if isinstance(under[key], Mapping) and isinstance(over[key], Mapping):
            whole[key] = merged(under[key], over[key])
    return whole


def read_recipe(path: Path) -> dict[str, Any]:
    """Read the sections of a YAML recipe, not yet validated.

    Raises:
        ConfigError: the file is missing, is no YAML, or is no mapping of sections.
    """
    content = yaml_text.read(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected sections such as 'data:' and 'finetune:'")
    return content


def _nearest(key: str, origins: Mapping[str, str]) -> str:
    """Return the origin of ``key``, or else of the innermost section around it that has one."""
    while key and key not in origins:
        key = key.rpartition(".")[0]
    return origins.get(key, "")


Settings = dict[str, Any]
"""Settings of a stage that are laid over others before they are checked."""


def laid_over(content: Settings, settings: Sequence[str]) -> Settings:
    """Return ``content`` with ``KEY=VALUE`` settings laid over it, such as ``a.b.c=1``.

    Raises:
        ConfigError: one of them is no setting.
    """
    return yaml_text.with_settings(content, settings)
