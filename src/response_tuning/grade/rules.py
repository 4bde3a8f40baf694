"""Whether an answer keeps a rule, by the checkers of IFEval."""

from response_tuning.errors import ConfigError
from response_tuning.roles import Rule


def check_rules_installed(where: str) -> None:
    """Refuse to go on without the checkers.

    Raises:
        ConfigError: lm-eval, or what its rules need, is not installed.
    """
    from response_tuning.grade.benchmarks.ifeval import missing_packages

    if missing := missing_packages():
        raise ConfigError(
            f"{where}: rules are checked by lm-eval, which needs {', '.join(missing)}: pip install "
            "'response-tuning[lm-eval]'"
        )


def check_rule(rule: Rule, instruction: str, response: str) -> bool | None:
    """Return whether ``response`` keeps ``rule``; None if no checker can tell.

    An empty response keeps no rule, as in IFEval.
    """
    from response_tuning.grade.benchmarks.ifeval import Instruction, followed

    if rule.checker is None:
        return None
    try:
        found = followed(instruction, Instruction(rule.checker, dict(rule.arguments)), response)
    except (TypeError, ValueError, KeyError, AttributeError):
        return None  # a model wrote arguments that the checker does not take
    return None if found.unchecked else found.strict
