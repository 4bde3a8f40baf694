"""``grades``: a judge that answers in digits grades each answer to the user's own prompts.

The prompts are those of ``prompts`` (``grade.paths.prompts``), so one file of answers serves both.
The judge replies with one digit, and the grade is the mean digit under its probabilities (Ye and
Ng, arXiv 2409.00935): ``grade.judge`` with engine ``hf`` and ``settings.digits``. The name says
what it sees: ``-response`` the answer alone, ``-brief`` headings without criteria. Where rows have
``expected`` words, ``auroc`` says how well grades tell correct answers from others: check a judge
with it before you believe its grades.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from response_tuning.artifacts import Completion, Message, Request, Score, Total
from response_tuning.configs import GradeConfig
from response_tuning.errors import DataError
from response_tuning.grade import selection
from response_tuning.grade.benchmark import BENCHMARKS, Item
from response_tuning.grade.benchmarks.prompts import NAME, Prompts
from response_tuning.grade.selection import Scored
from response_tuning.judging import Form, Sees, judging_prompt

GRADE, CORRECT = "grade", "correct"
EMPTY = "the answer is empty"


class Grades(Prompts):
    """Prompts of one user turn each, whose answers a judge grades from 0 to 9."""

    headline = (GRADE, "strict", CORRECT, "auroc")
    metrics = (GRADE, "strict", CORRECT, "auroc")
    scales: Mapping[str, tuple[float, float]] = MappingProxyType({GRADE: (0.0, 9.0)})
    files_of = NAME
    uncompared = ("auroc",)
    asks_for_digits = True

    def __init__(self, config: GradeConfig, sees: Sees = "both", form: Form = "full") -> None:
        super().__init__(config)
        self._sees = sees
        self._form = form

    def questions(self, item: Item, completion: Completion) -> Sequence[Request]:
        """Return one question; an empty answer has grade 0 without a judge."""
        answer = completion.response or ""
        if not answer.strip():
            return []
        shown = item.prompt[-1].content if self._sees == "both" else None
        asked = judging_prompt(answer, shown, form=self._form)
        prompt = (Message(role="user", content=asked),)
        return [Request(item_id=item.item_id, prompt=prompt)]

    def judged(
        self, item: Item, completion: Completion, replies: Sequence[Completion]
    ) -> Iterator[Score]:
        """Yield the mean digit, and *correct* and *strict* where the row has expected words.

        Raises:
            DataError: the judge answered in words.
        """
        grade = replies[0].expected_digit if replies else 0.0
        if grade is None:
            raise DataError(
                f"item {item.item_id}: the judge's reply is no grade; name an engine 'hf' with "
                "grade.judge.settings.digits=true"
            )
        why = "" if replies else EMPTY
        yield Score(item_id=item.item_id, metric=GRADE, value=grade, explanation=why)
        yield from self.score(item, completion)

    def totals(self, scores: Sequence[Score]) -> Iterator[Total]:
        """Yield the area under the ROC curve of the grade, where rows have expected words.

        Empty answers are left out: their grades are not the judge's.
        """
        correct = {one.item_id: one.value for one in scores if one.metric == CORRECT}
        graded = [
            one
            for one in scores
            if one.metric == GRADE and one.item_id in correct and one.explanation != EMPTY
        ]
        good = np.array([correct[one.item_id] for one in graded])
        if len({*good.tolist()}) > 1:  # a judge tells nothing apart where all answers are alike
            grades = np.array([one.value for one in graded])
            area = selection.area(Scored(np.arange(len(graded)), grades, good))
            note = "grade against correct, of answers that are not empty; bootstrap over prompts"
            yield Total(metric="auroc", **area._asdict(), n=len(graded), note=note)


def _register(name: str, sees: Sees, form: Form) -> None:
    def grades(config: GradeConfig) -> Grades:
        return Grades(config, sees, form)

    BENCHMARKS.register(name)(grades)


_register("grades", "both", "full")
_register("grades-brief", "both", "brief")
_register("grades-response", "response", "full")
_register("grades-response-brief", "response", "brief")
