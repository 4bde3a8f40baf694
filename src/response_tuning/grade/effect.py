"""Settings of grading that would have no effect: whoever gave them expects one."""

from collections.abc import Sequence
from typing import get_args

from response_tuning.configs import GradeConfig, JudgeConfig, ReportConfig
from response_tuning.errors import ConfigError
from response_tuning.grade.benchmark import (
    BENCHMARKS,
    Declaring,
    JudgedBenchmark,
    Outcome,
    open_benchmark,
)
from response_tuning.grade.lm_eval.tasks import CORE
from response_tuning.grade.measures import MEASURES
from response_tuning.registry import unknown

OFFLINE = "offline"
"""The judge without a model."""
PAIRWISE = frozenset({"alpaca-eval"})
"""Benchmarks that compare answers with those of a reference."""
_MADE_HERE = "miniature-"
"""What the names of benchmarks begin with that read no files."""


def check_effect(benchmarks: Sequence[str], config: GradeConfig, *, graded: bool = True) -> None:
    """Refuse settings that none of ``benchmarks`` has a use for.

    ``benchmarks`` may name those of lm-eval too. Where answers are only generated, as ``graded``
    says, no judge and no reference is looked at.

    Raises:
        ConfigError: one line that names the setting.
    """
    reading = [name for name in benchmarks if not name.startswith(_MADE_HERE)]
    named = ", ".join(benchmarks)
    if config.data is not None and not reading:
        raise ConfigError(f"grade.data (--data): {named}: made by rtune itself, from no files")
    for key, values in (("paths", config.paths), ("revisions", config.revisions)):
        for name in values:
            if name not in reading:
                raise unknown(f"benchmark of this run in grade.{key}", name, reading)
    if not graded:
        return
    if config.reference is not None and not PAIRWISE & {*benchmarks}:
        raise ConfigError(f"grade.reference (--reference): {named}: compared with no reference")
    if config.difficulties is not None and not PAIRWISE & {*benchmarks}:
        raise ConfigError(f"grade.difficulties: {named}: compared with no reference")
    _check_judge(benchmarks, config, named)


def check_metrics(benchmarks: Sequence[str], config: GradeConfig, report: ReportConfig) -> None:
    """Refuse a metric of ``report.equivalence`` that none of ``benchmarks`` has.

    The default is not looked at; nor is any metric beside a benchmark that does not name its own.

    Raises:
        ConfigError: one line that names the metric and the nearest one that is there.
    """
    if "equivalence" not in report.model_fields_set:
        return
    known: dict[str, None] = {}
    for name in benchmarks:
        if name in CORE:
            known |= dict.fromkeys(CORE[name].metrics)
            continue
        rule = open_benchmark(name, config)
        if not isinstance(rule, Declaring):
            return
        known |= dict.fromkeys((*rule.metrics, *MEASURES, *get_args(Outcome)))
    for metric in report.equivalence:
        if metric not in known:
            raise unknown("metric in report.equivalence", metric, [*known])


def check_offline(judge: JudgeConfig) -> None:
    """Refuse settings of a judge that is rules alone.

    Raises:
        ConfigError: one line that names the setting.
    """
    if judge.engine != OFFLINE:
        return
    given = [f"settings.{key}" for key in sorted(judge.settings.model_fields_set)]
    asked = {"max_new_tokens": judge.max_new_tokens, "temperature": judge.temperature}
    for key, value in asked.items():
        given += [key] if value != JudgeConfig.model_fields[key].default else []
    if given:
        raise ConfigError(
            f"grade.judge: '{given[0]}' has no effect on the offline judge, which is rules; "
            "name an engine, such as --judge openai, or remove it"
        )


def _check_judge(benchmarks: Sequence[str], config: GradeConfig, named: str) -> None:
    judge = config.judge
    check_offline(judge)
    if judge.engine == OFFLINE:
        return
    rules = [open_benchmark(name, config) for name in benchmarks if name in BENCHMARKS.names()]
    if not any(isinstance(rule, JudgedBenchmark) for rule in rules):
        raise ConfigError(f"grade.judge (--judge {judge.engine}): {named}: graded by rules alone")
