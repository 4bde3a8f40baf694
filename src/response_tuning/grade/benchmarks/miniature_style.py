"""The miniature's questions again, with one more metric: whether the answer comes first.

*answer_first*: the response begins with what was asked, as in "Ambelle is the capital of Lorenia.".
The pairs of ``miniature`` (split ``preferences``) prefer that form. Families that have no such form
are left out.
"""

from collections.abc import Iterator

from response_tuning.artifacts import Completion, Score
from response_tuning.configs import GradeConfig
from response_tuning.grade.benchmark import BENCHMARKS, Item
from response_tuning.grade.benchmarks.miniature import Ordinary
from response_tuning.miniature.examples import FamilyQuestion
from response_tuning.miniature.preferences import forms
from response_tuning.miniature.world import Fact, Split


class Style(Ordinary):
    """Questions whose answer may come first or last."""

    metrics = ("answer_first", *Ordinary.metrics)
    headline = ("answer_first", "strict", "correct")

    @property
    def _questions(self) -> dict[str, FamilyQuestion]:
        every = super()._questions.items()
        return {name: question for name, question in every if forms(question.family)[0]}

    def score(self, item: Item, completion: Completion) -> Iterator[Score]:
        """Yield ``answer_first`` and the scores of the ordinary benchmark."""
        fact = self._questions[item.item_id].fact
        yield Score(
            item_id=item.item_id,
            metric="answer_first",
            value=float(is_first(fact, completion.response or "")),
            group=item.group,
            cluster=item.cluster,
        )
        yield from super().score(item, completion)


def is_first(fact: Fact, response: str) -> bool:
    """Whether a response begins with the answer to ``fact``, as a whole word."""
    begun = response.strip().casefold()
    answer = fact.answer.casefold()
    return begun.startswith(answer) and not begun[len(answer) : len(answer) + 1].isalnum()


def _register(split: Split, ending: str) -> None:
    def seen(config: GradeConfig) -> Style:
        return Style(seen=True, split=split, limit=config.limit)

    def unseen(config: GradeConfig) -> Style:
        return Style(seen=False, split=split, limit=config.limit)

    BENCHMARKS.register(f"miniature-style-seen{ending}")(seen)
    BENCHMARKS.register(f"miniature-style-unseen{ending}")(unseen)


_register("test", "")
_register("validation", "-validation")
