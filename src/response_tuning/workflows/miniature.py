"""``rtune miniature build``: a base model of the synthetic world."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.folders import locked
from response_tuning.terminal import progress_bar, quiet_libraries

if TYPE_CHECKING:
    from rich.console import Console


def build_miniature(settings: Sequence[str], out: Path, console: "Console") -> None:
    """Build a base model of the miniature's world.

    Raises:
        ConfigError: a setting is impossible.
    """
    from response_tuning.miniature.build import BuildConfig, build_base
    from response_tuning.recipe import read_layers

    quiet_libraries()
    config = read_layers(None, {}, settings, where="rtune miniature build").build(BuildConfig)
    console.print(
        f"{config.pretrain.tokens:,} tokens, {config.pretrain.steps:,} steps, on the CPU",
        highlight=False,
    )
    with locked(out), progress_bar("steps", console) as advance:
        loss = build_base(config, out, advance)
    console.print(
        f"wrote {out}: loss {loss:.3f} nats a token over the last steps",
        highlight=False,
        soft_wrap=True,
    )
