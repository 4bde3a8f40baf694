"""Suites of benchmarks, and the experiment that ``rtune eval`` makes of them."""

from collections.abc import Sequence

from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError
from response_tuning.recipe import Settings, read_layers
from response_tuning.registry import unknown
from response_tuning.workflows.experiment import Experiment
from response_tuning.workflows.judge import OFFLINE

_OF_A_BASE = {"base_model", "base_revision", "template", "device"}
"""Settings of ``finetune`` that name the model where nothing is tuned."""


REFUSAL = ("advbench", "harmbench", "malicious-instruct", "xstest")


REFUSAL_SUITE = "refusal-suite"
"""The mean of the four, as the paper's "Average"."""


CORE = tuple(f"core-{task}" for task in ("mmlu", "openbookqa", "hellaswag", "arc", "gsm8k", "piqa"))
"""By lm-eval, which asks the model itself: they have scores and no completions."""


SUITES: dict[str, tuple[str, ...]] = {
    "refusal": REFUSAL,
    "helpfulness": ("just-eval", "alpaca-eval", "acceptability"),
    "instructions": ("ifeval", "infobench"),
    "core": CORE,
}


def evaluation_of(
    model: str,
    suites: Sequence[str],
    grading: Settings,
    generating: Settings,
    settings: Sequence[str] = (),
) -> Experiment:
    """Return the experiment that has one model, as it is, answer suites, or single benchmarks.

    Benchmarks that need a judge or a reference, where there is none, are left out and named in a
    note of the report.

    Raises:
        ConfigError: a suite is unknown, or nothing of it is left.
    """
    native = "native" if generating["engine"] == "hf" else "tulu"
    flags = {
        "variants": {"model": {"finetune": None, "label": f"{model}, as it is"}},
        "finetune": {"base_model": model, "template": generating["template"] or native},
        "generate": {key: value for key, value in generating.items() if value is not None},
        "grade": grading,
    }
    layers = read_layers(None, flags, settings, where="rtune eval")
    config = layers.build(GradeConfig, ["grade"])
    found, notes = _possible(suites, config)
    layers.content = {"benchmarks": found, "notes": notes, **layers.content}
    experiment = layers.build(Experiment)
    if idle := sorted(experiment.finetune.keys() - _OF_A_BASE):
        raise ConfigError(f"--set finetune.{idle[0]} has no effect: eval tunes nothing; remove it")
    if experiment.data:
        raise ConfigError("--set data... has no effect: eval tunes nothing; remove it")
    left_out = {name for suite in suites for name in _members(suite)} - {*found}
    used = {
        key: {name: value for name, value in getattr(config, key).items() if name not in left_out}
        for key in ("paths", "revisions")
    }
    return experiment.model_copy(update={"grade": config.model_copy(update=used)})


def _possible(suites: Sequence[str], config: GradeConfig) -> tuple[list[str], list[str]]:
    """Return the benchmarks of suites that can be graded so, and sentences on the others."""
    from response_tuning.grade import JudgedBenchmark, open_benchmark

    found, notes = [], []
    for name in dict.fromkeys(name for suite in suites for name in _members(suite)):
        if name in CORE:
            found.append(name)
            continue
        try:
            rule = open_benchmark(name, config)
        except ConfigError as error:
            notes.append(f"{name} was left out: {error}.")
            continue
        if isinstance(rule, JudgedBenchmark) and config.judge.engine == OFFLINE:
            notes.append(f"{name} was left out: it needs a judge.")
            continue
        found.append(name)
    if not found:
        raise ConfigError(" ".join(notes))
    return found, notes


def _members(suite: str) -> Sequence[str]:
    from response_tuning.grade import BENCHMARKS

    if suite == "all":
        return [name for names in SUITES.values() for name in names]
    if suite in {*BENCHMARKS.names(), *CORE}:
        return [suite]
    if suite not in SUITES:
        raise unknown("suite or benchmark", suite, [*SUITES, "all", *BENCHMARKS.names(), *CORE])
    return SUITES[suite]


def reported(benchmarks: Sequence[str]) -> tuple[str, ...]:
    """Return the benchmarks of a report: the mean of the four after them, if all are there."""
    return (*benchmarks, REFUSAL_SUITE) if {*REFUSAL} <= {*benchmarks} else tuple(benchmarks)
