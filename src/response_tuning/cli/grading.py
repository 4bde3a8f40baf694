"""How answers are graded, from the flags of a command."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

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
    from response_tuning.configs import GradeConfig
    from response_tuning.recipe import laid_over
    from response_tuning.validation import build

    judge = chosen(model=judging.judge_model, base_url=judging.judge_url, table=judging.judge_table)
    content = {
        **copies.given(),
        **chosen(reference=reference),
        "judge": {**chosen(engine=judging.judge), "settings": judge},
    }
    whole = laid_over({"grade": content}, settings or [])
    if others := whole.keys() - {"grade"}:
        raise ConfigError(f"--set {min(others)}...: expected grade.KEY=VALUE")
    return build(GradeConfig, whole["grade"], "grade")
