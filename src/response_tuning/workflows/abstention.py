"""Declining where a model is not sure enough: from which confidence on it answers."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from response_tuning.artifacts import Completion, Score, read_jsonl
from response_tuning.errors import ConfigError, DataError
from response_tuning.metrics import ACCURACY
from response_tuning.readers import shown

if TYPE_CHECKING:
    from rich.console import Console

    from response_tuning.report.selective import Answers

ABSTENTION = "I am not sure enough to answer that."
ABSTAINED = "abstained:"
CONFIDENCE = "confidence"
LEVEL = 0.95
"""Probability with which a stated risk is kept."""


class Abstaining(NamedTuple):
    """When to decline: below a confidence, or so that a stated risk is kept."""

    below: float | None = None
    """In nats: the mean log-likelihood of an answer's tokens."""
    risk: float | None = None
    """Share of wrong answers among those that are given, at most."""
    graded: Path | None = None
    """Scores of the same model's answers to a benchmark: the risk is measured on them."""

    def check(self, engine: str) -> bool:
        """Return whether anything is to be declined.

        Raises:
            ConfigError: the settings contradict each other, or the engine knows no confidence.
        """
        if self.below is None and self.risk is None:
            if self.graded is not None:
                raise ConfigError("--graded has no effect without --abstain-risk; add it")
            return False
        if self.below is not None and self.risk is not None:
            raise ConfigError("--abstain-below and --abstain-risk exclude each other; give one")
        flag = "--abstain-below" if self.risk is None else "--abstain-risk"
        if engine != "hf":
            raise ConfigError(
                f"{flag}: engine '{engine}' does not tell how sure an answer is; use 'hf'"
            )
        if self.risk is not None and not 0 < self.risk < 1:
            raise ConfigError(f"--abstain-risk is {self.risk:g}; use a share between 0 and 1")
        if self.risk is not None and self.graded is None:
            raise ConfigError(
                "--abstain-risk needs --graded: scores of this model's answers, such as "
                "RUN/VARIANT/seed-0/grade/BENCHMARK.jsonl"
            )
        if self.risk is None and self.graded is not None:
            raise ConfigError("--graded has no effect with --abstain-below; leave one out")
        return True

    def threshold(self, console: "Console") -> float:
        """Return the confidence below which to decline, and print what a stated risk comes to.

        Raises:
            DataError: the graded answers do not show that the risk can be kept.
        """
        if self.risk is None or self.graded is None:
            assert self.below is not None
            return self.below
        found = stated(self.graded, self.risk)
        line = (
            f"at a stated risk of {self.risk:.1%}: declines below {found.below:.3f}, which keeps "
            f"{found.kept:,} of {found.of:,} graded answers, {found.wrong:.1%} of them wrong "
            f"(by '{found.metric}')"
        )
        console.print(line, highlight=False, soft_wrap=True)
        return found.below


class Threshold(NamedTuple):
    """Where a model declines, and what it answers then of the graded prompts."""

    below: float
    metric: str
    kept: int
    of: int
    wrong: float
    """Share of wrong answers among the ones kept."""


def stated(graded: Path, risk: float) -> Threshold:
    """Return where a model must decline so that ``risk`` is kept, from its graded answers.

    Raises:
        DataError: the scores have no confidence or no metric of right answers, or no share of the
            answers can be shown to keep the risk.
    """
    from response_tuning.report.selective import threshold

    metric, answers = graded_answers(graded)
    found = threshold(answers, risk, LEVEL)
    if found is None:
        raise DataError(
            f"{graded}: no share of its {len(answers.right):,} answers can be shown to have at "
            f"most {risk:.1%} wrong ones ({1 - answers.right.mean():.1%} of all are wrong, by "
            f"'{metric}'); state a higher risk, or grade more answers"
        )
    kept = answers.confidence >= found[0]
    wrong = float(1 - answers.right[kept].mean())
    return Threshold(found[0], metric, int(kept.sum()), len(kept), wrong)


def graded_answers(graded: Path) -> tuple[str, "Answers"]:
    """Return the metric of right answers, and the answers that have it and a confidence.

    Raises:
        DataError: the scores have no such metric, or no confidence.
    """
    import numpy as np

    from response_tuning.report.selective import answers_of

    values: dict[str, dict[str, float]] = {}
    clusters: dict[str, str] = {}
    for score in read_jsonl(graded, Score):
        values.setdefault(score.metric, {})[score.item_id] = score.value
        clusters[score.item_id] = score.cluster or f"item {score.item_id}"
    metric = next((name for name in ACCURACY if name in values), None)
    if metric is None:
        known = " or ".join(f"'{name}'" for name in ACCURACY)
        raise DataError(f"{graded}: no scores of right answers ({known})")
    if CONFIDENCE not in values:
        raise DataError(
            f"{graded}: its answers have no confidence; make them with 'rtune generate "
            "--confidence', or generate.settings.confidence in a recipe"
        )
    both = [item for item in values[metric] if item in values[CONFIDENCE]]
    sure, right = (np.array([values[name][item] for item in both]) for name in (CONFIDENCE, metric))
    of_item = np.array([clusters[item] for item in both])
    return metric, answers_of(sure, right, of_item, np.arange(len(both)))


def check_model(graded: Path, model: str) -> None:
    """Refuse scores that lie in a run beside the answers of another model.

    Raises:
        DataError: they do.
    """
    beside = graded.parent.parent / "generate" / graded.name
    if graded.parent.name != "grade" or not beside.is_file():
        return
    answered = next(iter(read_jsonl(beside, Completion)), None)
    if answered is not None and answered.model != model:
        raise DataError(
            f"{graded}: scores of another model ({shown(answered.model)}, here {shown(model)}); "
            "a threshold holds for one model"
        )


def abstaining(completion: Completion, threshold: float) -> Completion:
    """Return a completion, or the abstention in its place if it is not sure enough.

    An answer without a confidence, such as one beyond the model's context, is not sure enough.
    """
    if completion.error is not None:
        return completion
    sure = completion.confidence
    if sure is not None and sure >= threshold:
        return completion
    said = "unknown" if sure is None else f"{sure:.3f}"
    why = f"{ABSTAINED} confidence {said}, threshold {threshold:g}"
    changes = {"response": ABSTENTION, "finish_reason": "stop", "detail": why}
    return completion.model_copy(update=changes)
