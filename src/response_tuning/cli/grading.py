"""How answers are graded, from the flags of a command."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from response_tuning.cli.flags import chosen
from response_tuning.cli.options import BenchmarkFlags, JudgeFlags
from response_tuning.errors import ConfigError

if TYPE_CHECKING:
    from response_tuning.configs import GradeConfig


def grade_config(
    copies: BenchmarkFlags,
    judging: JudgeFlags,
    reference: str | None,
    settings: Sequence[str] | None,
) -> "GradeConfig":
    """Return the settings of grading: the flags, with ``--set grade...`` over them.

    Raises:
        ConfigError: a setting is unknown or impossible, or of another section.
    """
    return grade_settings(settings, grade_flags(copies, judging, reference))


def grade_settings(
    settings: Sequence[str] | None, flags: dict[str, Any] | None = None
) -> "GradeConfig":
    """Return the settings of grading that ``--set grade...`` makes over those of flags.

    Raises:
        ConfigError: a setting is unknown or impossible, or of another section.
    """
    from response_tuning.configs import GradeConfig
    from response_tuning.recipe import read_layers

    layers = read_layers(None, {"grade": flags or {}}, settings or [])
    if others := layers.content.keys() - {"grade"}:
        raise ConfigError(f"--set {min(others)}...: expected grade.KEY=VALUE")
    return layers.build(GradeConfig, ["grade"])


def grade_flags(
    copies: BenchmarkFlags, judging: JudgeFlags, reference: str | None
) -> dict[str, Any]:
    """Return the section ``grade`` that the flags of a command stand for."""
    judge = chosen(model=judging.judge_model, base_url=judging.judge_url, table=judging.judge_table)
    return {
        **copies.given(),
        **chosen(reference=reference),
        "judge": {**chosen(engine=judging.judge), "settings": judge},
    }
