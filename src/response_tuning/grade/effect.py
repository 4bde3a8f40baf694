"""Settings of grading that would have no effect: they are refused, since their user expects one."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import get_args

from response_tuning.configs import GradeConfig, JudgeConfig
from response_tuning.errors import ConfigError
from response_tuning.grade.benchmark import (
    OFFLINE,
    JudgedBenchmark,
    UnjudgedReason,
    facts,
    open_benchmark,
    open_lm_eval,
)
from response_tuning.metrics import MEASURES
from response_tuning.registry import unknown
from response_tuning.report_config import ReportConfig


def check_effect(benchmarks: Sequence[str], config: GradeConfig, *, graded: bool = True) -> None:
    """Refuse settings that have no effect on any of ``benchmarks``.

    Without ``graded``, answers are only generated, so the judge and the reference are not checked.

    Raises:
        ConfigError: one line that names the setting.
    """
    known = {name: facts(name, config) for name in benchmarks}
    # A setting is fine if one benchmark of the run uses it.
    reading = sorted(files_of(benchmarks, config))
    named = ", ".join(benchmarks)
    if config.data is not None and not reading:
        raise ConfigError(f"grade.data (--data): {named}: made by rtune itself, from no files")
    for key, values in (("paths", config.paths), ("revisions", config.revisions)):
        for name in values:
            if name not in reading:
                raise unknown(f"benchmark of this run in grade.{key}", name, reading)
    if not graded:
        return
    compared = any(found.has_reference for found in known.values())
    if config.reference is not None and not compared:
        raise ConfigError(f"grade.reference (--reference): {named}: compared with no reference")
    if config.difficulties is not None and not compared:
        raise ConfigError(f"grade.difficulties: {named}: compared with no reference")
    _check_judge(benchmarks, config, named)


def files_of(benchmarks: Iterable[str], config: GradeConfig | None = None) -> set[str]:
    """Return the names under which ``grade.paths`` and ``grade.revisions`` have their files."""
    known = ((name, facts(name, config)) for name in benchmarks)
    return {found.files_of or name for name, found in known if found.reads_files}


def check_metrics(benchmarks: Sequence[str], config: GradeConfig, report: ReportConfig) -> None:
    """Refuse a metric of ``report`` that none of ``benchmarks`` has.

    No metric is checked if a benchmark does not declare its own. A margin for all benchmarks is
    refused as well if the metric has different scales in them, since it could fit one of them only.

    Raises:
        ConfigError: one line that names the metric and the nearest known one.
    """
    _check_margins(benchmarks, config, report)
    known: dict[str, list[str]] = {}  # metric -> the benchmarks that have it
    for name in benchmarks:
        declared = facts(name, config).metrics
        if not declared:  # it may have any metric
            return
        measured = open_lm_eval(name) is None
        others = (*MEASURES, *get_args(UnjudgedReason)) if measured else ()
        for metric in (*declared, *others):
            known.setdefault(metric, []).append(name)
    both = {f"{name}/{metric}" for metric, names in known.items() for name in names}
    for metric in report.equivalence:
        if not _is_among(known, metric) and not _is_among(both, metric):
            raise unknown("metric in report.equivalence", metric, [*known])
    for metric in report.metrics:
        if not _is_among(known, metric):
            raise unknown("metric in report.metrics", metric, [*known])
    for one in report.primary:
        if not _is_among(known, one.metric):
            raise unknown("metric in report.primary", one.metric, [*known])
    _check_compared(benchmarks, config, report)


def _check_compared(benchmarks: Sequence[str], config: GradeConfig, report: ReportConfig) -> None:
    totals = {one for name in benchmarks for one in facts(name, config).uncompared}
    named = [("equivalence", metric) for metric in report.equivalence]
    named += [("primary", one.metric) for one in report.primary]
    for key, metric in named:
        if metric.rpartition("/")[2] in totals:
            raise ConfigError(
                f"report.{key}: '{metric}' is a total of all answers, by which variants are not "
                "compared; name another metric"
            )


def _is_among(declared: Iterable[str], metric: str) -> bool:
    """Whether ``metric`` is declared, by its name or by a pattern such as ``kept_*``."""
    return any(fnmatchcase(metric, name) for name in declared)


def _check_margins(benchmarks: Sequence[str], config: GradeConfig, report: ReportConfig) -> None:
    for metric in report.equivalence:
        scales = {
            name: tuple(found.scales.get(metric, (0, 1)))
            for name in benchmarks
            if _is_among((found := facts(name, config)).metrics, metric)
        }
        if len({*scales.values()}) > 1:
            name, _ = min(scales.items())
            raise ConfigError(
                f"report.equivalence: '{metric}' has different scales in {', '.join(scales)}; give "
                f"each its own margin, such as '{name}/{metric}: {{margin: ..., reason: ...}}'"
            )


def check_offline(judge: JudgeConfig) -> None:
    """Refuse settings of the offline judge, which has none.

    Raises:
        ConfigError: one line that names the setting.
    """
    if judge.engine != OFFLINE:
        return
    changed = [f"settings.{key}" for key in sorted(judge.settings.model_fields_set)]
    limits = {"max_new_tokens": judge.max_new_tokens, "temperature": judge.temperature}
    # These two have defaults for a model's sake, so only a change shows that somebody set them.
    for key, value in limits.items():
        changed += [key] if value != JudgeConfig.model_fields[key].default else []
    if changed:
        raise ConfigError(
            f"grade.judge: '{changed[0]}' has no effect on the offline judge, which is rules; "
            "name an engine, such as --judge openai, or remove it"
        )


def needed_judge(rule: JudgedBenchmark) -> str:
    """Return which judge a benchmark needs, as the end of a sentence."""
    if getattr(rule, "asks_for_digits", False):
        return (
            "a judge that answers in digits, such as --judge hf --judge-model FOLDER --set "
            "grade.judge.settings.digits=true"
        )
    return (
        "a judge, such as --judge openai --judge-model MODEL --judge-url http://127.0.0.1:8000/v1"
    )


def lacks_judge(benchmarks: Iterable[str], config: GradeConfig) -> str:
    """Return the first benchmark that needs a judge, and which, if there is none; else nothing."""
    if config.judge.engine != OFFLINE:
        return ""
    for name in benchmarks:
        rule = None if open_lm_eval(name) else open_benchmark(name, config)
        if isinstance(rule, JudgedBenchmark):
            return f"{name} needs {_in_settings(needed_judge(rule))}"
    return ""


def _in_settings(line: str) -> str:
    """Return a line with the settings of a recipe in place of flags."""
    for flag, key in (
        ("--judge-model ", "settings.model"),
        ("--judge-url ", "settings.base_url"),
        ("--judge ", "engine"),
    ):
        line = line.replace(flag, f"--set grade.judge.{key}=")
    return line


def _check_judge(benchmarks: Sequence[str], config: GradeConfig, named: str) -> None:
    judge = config.judge
    check_offline(judge)
    if judge.engine == OFFLINE:
        return
    rules = {name: open_benchmark(name, config) for name in benchmarks if not open_lm_eval(name)}
    judged = [name for name, rule in rules.items() if isinstance(rule, JudgedBenchmark)]
    if not judged:
        raise ConfigError(f"grade.judge (--judge {judge.engine}): {named}: graded by rules alone")
    limits = {"max_new_tokens": judge.max_new_tokens, "temperature": judge.temperature}
    for key, value in limits.items() if judge.settings.digits else ():
        if value != JudgeConfig.model_fields[key].default:
            raise ConfigError(f"grade.judge: '{key}' has no effect on a judge that gives digits")
    for name in judged:
        if facts(name, config).asks_for_digits and not judge.settings.digits:
            raise ConfigError(
                f"{name}: its judge answers in digits; name a local one with --judge hf, and add "
                "--set grade.judge.settings.digits=true"
            )
        if judge.settings.digits and not facts(name, config).asks_for_digits:
            raise ConfigError(
                f"{name}: its judge answers in words; remove grade.judge.settings.digits"
            )
