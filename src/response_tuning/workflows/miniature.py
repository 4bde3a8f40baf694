"""``rtune miniature build``: base models of the synthetic world, one or a series."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from response_tuning.errors import ConfigError
from response_tuning.folders import free_folder, locked, shared
from response_tuning.recipe import Layers, merged, read_layers
from response_tuning.terminal import progress_bar, quiet_libraries
from response_tuning.validation import build

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.miniature.build import BuildConfig

WHERE = "rtune miniature build"


def build_miniature(
    settings: Sequence[str], out: Path, console: "Console", recipe: Path | None = None
) -> None:
    """Build the base model of the settings, or one for each entry under ``bases`` of a recipe.

    The bases of a series are built one after the other, each in a folder of its name. One that
    another process is building is left to it.

    Raises:
        ConfigError: a setting is impossible, or ``out`` holds another build.
    """
    quiet_libraries()
    layers = read_layers(recipe, {}, settings, where=WHERE)
    bases = layers.content.pop("bases", None)
    if bases is None:
        with locked(out):
            _build(_config(layers, {}, ""), out, console)
        return
    if not (isinstance(bases, Mapping) and bases):
        raise ConfigError(f"{layers.where}: bases: expected a name and settings for each base")
    # All are checked before the first, which takes half an hour, is built.
    configs = {str(name): _config(layers, own, f"bases.{name}") for name, own in bases.items()}
    with shared(out):
        for name, config in configs.items():
            with free_folder(out / name) as is_free:
                line = f"{name}:" if is_free else f"{name}: in use by another process"
                console.print(line, highlight=False)
                if is_free:
                    _build(config, out / name, console)


def _config(layers: Layers, own: object, key: str) -> "BuildConfig":
    from response_tuning.miniature.build import BuildConfig

    if not key:
        return layers.build(BuildConfig)
    if not isinstance(own, Mapping):
        raise ConfigError(f"{layers.where}: {key}: expected settings, such as 'mixture: {{}}'")
    whole: dict[str, Any] = merged(layers.content, own)
    return build(BuildConfig, whole, f"{layers.where}: {key}")


def _build(config: "BuildConfig", out: Path, console: "Console") -> None:
    from response_tuning.miniature.build import build_base

    console.print(
        f"{config.pretrain.tokens:,} tokens, {config.pretrain.steps:,} steps, on the CPU",
        highlight=False,
    )
    with progress_bar("steps", console) as advance:
        loss = build_base(config, out, advance)
    console.print(
        f"wrote {out}: loss {loss:.3f} nats a token over the last steps",
        highlight=False,
        soft_wrap=True,
    )
