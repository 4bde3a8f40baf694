"""What the commands share that have a model write in place of responses."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from response_tuning.cli.options import EngineFlags
from response_tuning.errors import ConfigError, unused
from response_tuning.terminal import console

if TYPE_CHECKING:
    from response_tuning.rewriting import Material

ReplyTokensOption = Annotated[int, typer.Option(min=1, help="Stop a reply after this many tokens.")]
FirstTemperatureOption = Annotated[
    float, typer.Option(min=0, help="Sample the first attempt at this temperature; 0 is greedy.")
]


def rewrite(settings: dict[str, Any], out: Path, where: str, *, retry_filtered: bool) -> None:
    """Extract and rewrite as ``settings`` say; exit with 1 if some texts got no reply."""
    from response_tuning.configs import DataConfig
    from response_tuning.validation import build
    from response_tuning.workflows import data

    config = build(DataConfig, settings, where)
    if data.run_rewriting(config, out, console(), retry_filtered=retry_filtered):
        raise typer.Exit(1)


def refinement_section(
    asked: EngineFlags,
    settings: dict[str, Any],
    policies: list[str] | None,
    sampling: dict[str, Any],
    material: "Material" = "response",
) -> dict[str, Any]:
    """Return the section ``data.refinement`` that the flags stand for."""
    warmer = settings.get("retry_temperature")
    if settings.get("retries") == 0:
        unused("--retries 0 asks nothing again", retry_temperature=warmer)
    if warmer is not None and warmer < sampling["temperature"]:
        unused("--temperature is higher, and a retry is never colder", retry_temperature=warmer)
    made = {"settings": asked.given(), "sampling": sampling}
    return {**settings, **made, "policies": _policies(policies or [], material)}


def _policies(texts: list[str], material: "Material") -> dict[str, str]:
    from response_tuning.registry import unknown
    from response_tuning.rewriting import policies_of

    policies: dict[str, str] = {}
    for text in texts:
        outcome, equals, policy = text.partition("=")
        if not equals:
            raise ConfigError(f"--on {text}: expected OUTCOME=POLICY, such as no-marker=drop")
        for kind, name, known in (
            ("outcome", outcome, [*policies_of(material)]),
            ("policy", policy, ["keep", "drop", "retry"]),
        ):
            if name not in known:
                raise ConfigError(f"--on {text}: {unknown(kind, name, known)}")
        if outcome in policies:
            raise ConfigError(f"--on {text}: {outcome} has a policy already; remove one of the two")
        policies[outcome] = policy
    return policies
