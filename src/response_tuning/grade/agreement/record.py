"""The record that a check of a judge leaves, and its sentence in every report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from response_tuning.artifacts import Record, read_json
from response_tuning.configs import JudgeConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.grade.agreement.comparison import SetCheck, prompt_digests
from response_tuning.grade.agreement.labelled_sets import REFUSAL_WORDS
from response_tuning.grade.benchmark import OFFLINE
from response_tuning.grade.judges.refusal_classifier import measured, rules_digest
from response_tuning.metrics import CORRECTED, JudgeErrors

CHECK = "judge-check.json"
FITTED_TO = ("xstest", "refusal_answers")
IN_SAMPLE = "its weights were fitted to these"


class Cost(Record):
    """The cost of a check."""

    questions: int
    asked: int
    """Questions that this run asked the judge; the journal had the replies to the others."""
    tokens: int | None
    """New tokens of all replies; None if the engine counts none."""
    prompt_tokens: int | None
    seconds: float


class CheckedJudge(Record):
    """The judge that was checked."""

    config: JudgeConfig
    model: str
    template: str
    prompts: dict[str, str]
    """Kind of question -> digest of its prompt; of the offline rules, their own digest."""


class Check(Record):
    """The result of ``rtune judge-check``."""

    judge: CheckedJudge
    sets: dict[str, SetCheck]
    cost: Cost
    packages: dict[str, str]


def checked_sentence(path: Path) -> str:
    """Return a sentence on the check in ``judge-check.json``, or in the folder that holds it.

    Raises:
        DataError: there is no such file, or it is not a check of a judge.
    """
    check = _read(path)
    return _sentence(check, f"The judge {name_of(check.judge.config)}")


def judge_sentence(config: JudgeConfig, used: Sequence[str]) -> str:
    """Return who judged the benchmarks ``used``, and how far that judge agrees with people.

    Raises:
        ConfigError: a file of ``checked`` is about another judge, or about other prompts.
        DataError: one of them is not a check of a judge.
    """
    if not used:
        return ""
    sentences = [f"{', '.join(used)}: judged by {name_of(config)}."]
    if config.engine == OFFLINE:
        sentences.append(measured())
    elif config.settings.digits:
        sentences.append(
            "Whether its grades tell right answers from wrong ones is known only where prompts "
            "have expected words: 'auroc'."
        )
    elif not config.checked:
        sentences.append(
            "This judge has not been checked against people's labels; run 'rtune judge-check' and "
            "name its file in grade.judge.checked."
        )
    sentences += [_sentence(_check_of(config, path), "This judge") for path in config.checked]
    return " ".join(sentences)


def asked_by(config: JudgeConfig) -> dict[str, str]:
    """Return a digest of what a judge asks about an answer: its prompts, or the offline rules."""
    return {"rules": rules_digest()} if config.engine == OFFLINE else prompt_digests()


def judge_errors(config: JudgeConfig) -> JudgeErrors | None:
    """Return the judge's errors on the labelled refusals of ``checked``, all sets together.

    None if there are no refusals or no compliances among the labels. Sets to which the rules were
    fitted do not count, nor do labels that mean something else than a refusal, such as HarmBench's.

    Raises:
        ConfigError: a file of ``checked`` is about another judge, or about other prompts.
        DataError: one of them is not a check of a judge.
    """
    tables = [
        one.figures.confusion
        for check in (_check_of(config, path) for path in config.checked)
        for name, one in check.sets.items()
        if {*one.figures.confusion} == {*REFUSAL_WORDS.values()} and not in_sample(check, name)
    ]
    refusals, compliances = (
        [table[label] for table in tables] for label in ("refusal", "compliance")
    )
    errors = JudgeErrors(
        refusals=sum(sum(row.values()) for row in refusals),
        refusals_found=sum(row["refusal"] for row in refusals),
        compliances=sum(sum(row.values()) for row in compliances),
        compliances_found=sum(row["compliance"] for row in compliances),
    )
    return errors if errors.refusals and errors.compliances else None


def correction_sentence(errors: JudgeErrors, corrected: Sequence[str]) -> str:
    """Return what the corrected rates of the benchmarks ``corrected`` correct for."""
    found = (
        f"it finds {100 * errors.sensitivity:.1f} % of {errors.refusals:,} labelled refusals and "
        f"{100 * errors.specificity:.1f} % of {errors.compliances:,} compliances"
    )
    names = ", ".join(corrected)
    if errors.youden <= 0:
        return f"{names}: refusal rates are not corrected for the judge's errors, since {found}."
    return (
        f"{names}: rates that end in {CORRECTED} are corrected for the judge's errors "
        f"(Rogan-Gladen; {found}). Their intervals (Lang and Reiczigel) include the uncertainty of "
        "both. They hold if the judge errs on these answers as it does on the labelled ones."
    )


def name_of(config: JudgeConfig) -> str:
    """Return the name of a judge for a sentence."""
    if config.engine == OFFLINE:
        return "rules alone, offline"
    return f"{config.settings.model or 'a table'} (engine {config.engine})"


def in_sample(check: Check, name: str) -> bool:
    """Whether the offline rules were fitted to this set, so that their agreement is too high."""
    return check.judge.config.engine == OFFLINE and name in FITTED_TO


def _read(path: Path) -> Check:
    file = path / CHECK if path.is_dir() else path
    try:
        return Check.model_validate(read_json(file))
    except ValidationError as error:
        raise DataError(f"{file}: not a file of 'rtune judge-check --save'") from error


def _check_of(config: JudgeConfig, path: Path) -> Check:
    """Read a check and refuse one of another judge, or of earlier prompts."""
    check = _read(path)
    if _identity(check.judge.config) != _identity(config):
        raise ConfigError(
            f"{path}: this check is of {name_of(check.judge.config)}, but the judge is "
            f"{name_of(config)}; run 'rtune judge-check' with this judge"
        )
    if check.judge.prompts != asked_by(config):
        what = "offline rules" if config.engine == OFFLINE else "judge's prompts"
        raise ConfigError(f"{path}: the {what} have changed since; run 'rtune judge-check' again")
    return check


def _identity(config: JudgeConfig) -> tuple[Any, ...]:
    """Return what identifies a judge; the address of its server does not."""
    return config.engine, *(
        getattr(config.settings, key) for key in ("model", "revision", "template")
    )


def _sentence(check: Check, subject: str) -> str:
    sets = []
    for name, one in check.sets.items():
        figures = one.figures
        kappa = "" if figures.kappa is None else f", kappa {figures.kappa:.2f}"
        low, high = figures.agreement_interval
        fitted = f"; {IN_SAMPLE}" if in_sample(check, name) else ""
        sets.append(
            f"{100 * figures.agreement:.1f} % of {figures.n:,} labels of {name} (95 % interval "
            f"{100 * low:.1f} to {100 * high:.1f} %{kappa}{fitted})"
        )
    unread = sum(one.figures.parse_failures for one in check.sets.values())
    failures = f"; {unread:,} replies could not be read and count as disagreement" if unread else ""
    return f"{subject} agreed with people on {' and on '.join(sets)}{failures}."
