"""The experiment that ``rtune eval`` makes of suites of benchmarks."""

from collections.abc import Sequence

from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError
from response_tuning.grade.benchmark import OFFLINE
from response_tuning.recipe import Settings, read_layers
from response_tuning.registry import unknown
from response_tuning.workflows.experiment import Experiment

_OF_A_BASE = {"base_model", "base_revision", "template", "device"}
"""Settings of ``finetune`` that name the model; all others have no effect without tuning."""
_EVERY_SUITE = "all"


def evaluation_of(
    model: str,
    suites: Sequence[str],
    grading: Settings,
    generating: Settings,
    settings: Sequence[str] = (),
) -> Experiment:
    """Return the experiment in which one model, as it is, answers suites or single benchmarks.

    Benchmarks that need a judge or a reference that ``config`` lacks are left out, and a note of
    the report names them.

    Raises:
        ConfigError: a suite is unknown, or all its benchmarks are left out.
    """
    from response_tuning.grade import files_of

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
    # A path of a benchmark that is left out is no mistake, so it is removed and not refused later.
    left_out = {name for suite in suites for name in _members(suite)} - {*found}
    left_out -= files_of(found, config)
    used = {
        key: {name: value for name, value in getattr(config, key).items() if name not in left_out}
        for key in ("paths", "revisions")
    }
    return experiment.model_copy(update={"grade": config.model_copy(update=used)})


def _possible(suites: Sequence[str], config: GradeConfig) -> tuple[list[str], list[str]]:
    """Return the benchmarks that can be graded with ``config``, and sentences on the others."""
    from response_tuning.grade import JudgedBenchmark, needed_judge, open_benchmark, open_lm_eval

    possible, notes = [], []
    for name in dict.fromkeys(name for suite in suites for name in _members(suite)):
        if open_lm_eval(name):
            possible.append(name)
            continue
        # A suite is a wish for whatever is possible here, so what is missing becomes a note.
        try:
            rule = open_benchmark(name, config)
        except ConfigError as error:
            notes.append(f"{name} was left out: {error}.")
            continue
        if isinstance(rule, JudgedBenchmark) and config.judge.engine == OFFLINE:
            notes.append(f"{name} was left out: it needs {needed_judge(rule)}.")
            continue
        possible.append(name)
    if not possible:
        raise ConfigError(" ".join(notes))
    return possible, notes


def _members(suite: str) -> Sequence[str]:
    """Return the benchmarks of a suite; a benchmark's own name stands for itself."""
    from response_tuning.grade import BENCHMARKS, suites

    by_suite = suites()
    if suite in BENCHMARKS.names():
        return [suite]
    if suite == _EVERY_SUITE:
        return [name for names in by_suite.values() for name in names]
    if suite not in by_suite:
        known = [*by_suite, _EVERY_SUITE, *BENCHMARKS.names()]
        raise unknown("suite or benchmark", suite, known)
    return by_suite[suite]
