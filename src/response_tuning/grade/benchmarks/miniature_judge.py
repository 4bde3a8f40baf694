"""The miniature's judges: does the mean digit tell sound answers from spoilt ones?

Four answers to each question are graded, by a model with ``generate.settings.digits: true``. What
the judge sees is part of the benchmark's name: question and answer, ``-response`` the answer alone,
``-reference`` a reference too, and ``-shuffled`` another question (a judge that is as good then
does not read questions). In ``-keys``, only the reference tells which answers count as good.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np

from response_tuning.artifacts import Completion, Message, Score, Total
from response_tuning.configs import GradeConfig
from response_tuning.errors import DataError
from response_tuning.grade import selection
from response_tuning.grade.benchmark import BENCHMARKS, Item
from response_tuning.grade.selection import Estimate, Scored
from response_tuning.grade.sources import spread
from response_tuning.judging import judging_prompt
from response_tuning.miniature.families import FamilyRole
from response_tuning.miniature.judging import JudgedAnswer, Task, candidates

View = Literal["both", "response", "reference", "shuffled"]
DIGIT, GOOD = "digit", "good"
NINE = 9.0


class _Asked(NamedTuple):
    item: Item
    good: bool


class Judging:
    """Answers to grade, in the groups ``seen`` and ``unseen`` families."""

    metrics = ("digit", "verdict", "auroc_seen", "auroc_unseen", "best_of_4", "oracle", "random")
    headline = ("auroc_seen", "auroc_unseen", "best_of_4", "oracle", "random", "verdict")
    uncompared = ("auroc_seen", "auroc_unseen", "best_of_4", "oracle", "random")
    scales: Mapping[str, tuple[float, float]] = MappingProxyType({"digit": (0.0, NINE)})
    reads_files = False

    def __init__(self, task: Task, view: View, limit: int | None) -> None:
        self._asked = partial(_items, task, view)
        self._limit = limit

    def items(self) -> Sequence[Item]:
        """Return the prompts, four a question; a limit counts questions."""
        questions: dict[str, list[Item]] = {}
        for item, _ in self._asked().values():
            questions.setdefault(item.cluster, []).append(item)
        first = spread([of_question[0] for of_question in questions.values()], self._limit)
        return [item for one in first for item in questions[one.cluster]]

    def score(self, item: Item, completion: Completion) -> Iterator[Score]:
        """Yield the mean digit, and ``verdict``: whether it is on the right side of 4.5."""
        if completion.expected_digit is None:
            raise DataError(
                f"item {item.item_id}: the answer is no grade; answer this benchmark with "
                "generate.settings.digits=true"
            )
        good = self._asked()[item.item_id].good
        verdict = (completion.expected_digit > NINE / 2) == good
        for metric, value in ((DIGIT, completion.expected_digit), ("verdict", float(verdict))):
            yield Score(
                item_id=item.item_id,
                metric=metric,
                value=value,
                group=item.group,
                cluster=item.cluster,
            )

    def totals(self, scores: Sequence[Score]) -> Iterator[Total]:
        """Yield the area under the ROC curve by group, and what the best of four is worth."""
        digits = [score for score in scores if score.metric == DIGIT]
        for group in ("seen", "unseen"):
            some = [score for score in digits if score.group == group]
            if some:
                found = selection.area(self._scored(some))
                if not np.isnan(found.value):
                    yield _total(f"auroc_{group}", found, len(some))
        every = self._scored(digits)
        choices = {
            "best_of_4": selection.best_of,
            "oracle": selection.oracle,
            "random": selection.at_random,
        }
        for name, choose in choices.items():
            yield _total(name, selection.mean(choose(every)), len(digits))

    def _scored(self, digits: Sequence[Score]) -> Scored:
        asked = self._asked()
        _, questions = np.unique([score.cluster for score in digits], return_inverse=True)
        return Scored(
            questions,
            np.array([score.value for score in digits]),
            np.array([float(asked[score.item_id].good) for score in digits]),
        )


def _total(metric: str, found: Estimate, n: int) -> Total:
    return Total(metric=metric, **found._asdict(), n=n, note="bootstrap over questions")


@cache
def _candidates(task: Task, group: FamilyRole) -> list[tuple[str, list[JudgedAnswer]]]:
    return [*candidates(task, group, "test")]


@cache
def _items(task: Task, view: View) -> dict[str, _Asked]:
    asked = {}
    groups: tuple[FamilyRole, ...] = ("seen", "unseen")
    for group in groups:
        every = _candidates(task, group)
        for place, (asked_as, answers) in enumerate(every):
            shown = every[(place + 1) % len(every)][1][0] if view == "shuffled" else answers[0]
            for number, answer in enumerate(answers):
                prompt = (Message(role="user", content=_prompt(view, answer, shown)),)
                name, cluster = f"{asked_as}-{number}", asked_as
                item = Item(item_id=name, prompt=prompt, group=group, cluster=cluster)
                asked[name] = _Asked(item, answer.good)
    return asked


def _prompt(view: View, answer: JudgedAnswer, shown: JudgedAnswer) -> str:
    return judging_prompt(
        answer.response,
        None if view == "response" else shown.instruction,
        reference=answer.reference if view == "reference" else None,
        form="brief",
    )


def _register(name: str, task: Task, view: View) -> None:
    def judging(config: GradeConfig) -> Judging:
        return Judging(task, view, config.limit)

    BENCHMARKS.register(name)(judging)


_register("miniature-judge", "form", "both")
_register("miniature-judge-response", "form", "response")
_register("miniature-judge-reference", "form", "reference")
_register("miniature-judge-shuffled", "form", "shuffled")
_register("miniature-judge-keys", "keys", "both")
_register("miniature-judge-keys-reference", "keys", "reference")
