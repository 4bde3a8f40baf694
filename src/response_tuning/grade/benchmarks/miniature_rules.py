"""``miniature-rules``: questions of the miniature under up to three rules of a role.

Groups: no role, one to three rules, triples that are held out, and one rule whose system turn
stands behind the question. *correct* is the right answer, whatever its form; *both* is a right
answer that keeps all rules. ``leak`` counts how many of the six rules are kept with no role given.
"""

import random
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from response_tuning.artifacts import Completion, Score
from response_tuning.configs import GradeConfig
from response_tuning.grade.benchmark import BENCHMARKS, Item
from response_tuning.grade.benchmarks.miniature import is_correct
from response_tuning.grade.benchmarks.rules import RuledItem, rule_scores, ruled_item
from response_tuning.grade.rules import check_rules_installed
from response_tuning.grade.sources import spread
from response_tuning.miniature.examples import FamilyQuestion
from response_tuning.miniature.rules import KINDS, draw_role, one_of_each, questions
from response_tuning.miniature.world import Split

ITEMS_PER_GROUP = 30
"""Of seen families, and as many of unseen ones."""
GROUPS: dict[str, tuple[int, bool, bool]] = {
    "no rule": (0, False, False),
    "1 rule": (1, False, False),
    "2 rules": (2, False, False),
    "3 rules": (3, False, False),
    "3 rules held out": (3, True, False),
    "1 rule behind": (1, False, True),
}
"""Group -> number of rules, whether their triple is held out, and whether they stand behind."""


class _Asked(NamedTuple):
    item: Item
    ruled: RuledItem
    question: FamilyQuestion


class MiniatureRules:
    """Questions under rules, graded by rule."""

    metrics = (
        *("all_rules", "both", "correct", "rule", "leak", "unchecked"),
        *(f"kept_{name}" for name in KINDS),
    )
    headline = ("both", "all_rules", "correct", "leak")
    reads_files = False

    def __init__(self, split: Split, limit: int | None) -> None:
        check_rules_installed("miniature-rules")
        self._split = split
        self._limit = limit

    def items(self) -> Sequence[Item]:
        """Return the questions, in the groups of ``GROUPS``."""
        return spread([asked.item for asked in _items(self._split).values()], self._limit)

    def score(self, item: Item, completion: Completion) -> Iterator[Score]:
        """Yield ``correct``, ``both`` where there are rules, and the scores of ``rules``."""
        _, ruled, question = _items(self._split)[item.item_id]
        correct = is_correct(question.family, question.fact, completion.response or "")
        scores = list(rule_scores(item, ruled, completion))
        yield _like(item, "correct", correct)
        for score in scores:
            if score.metric == "all_rules":
                yield _like(item, "both", correct and bool(score.value))
        yield from scores


def _like(item: Item, metric: str, value: bool) -> Score:
    return Score(
        item_id=item.item_id,
        metric=metric,
        value=float(value),
        group=item.group,
        cluster=item.cluster,
    )


@cache
def _items(split: Split) -> dict[str, _Asked]:
    asked: dict[str, _Asked] = {}
    for place, (group, (number, held_out, behind)) in enumerate(GROUPS.items()):
        draw = random.Random(f"rules {split} {group}")
        for seen, every in questions(split).items():
            # Each group has questions of its own, as far as there are enough.
            begin = place * ITEMS_PER_GROUP
            for question in (every * 2)[begin : begin + ITEMS_PER_GROUP]:
                role = draw_role(draw, number, held_out=held_out) if number else None
                absent = () if role else one_of_each(draw)
                ruled = RuledItem(instruction=question.text, role=role, absent=absent)
                name = f"{group.replace(' ', '-')}-{seen}-{question.item_id}"
                item = ruled_item(name, ruled, last=behind, group=f"{group}, {seen}")
                fact = f"{question.family.name}: {question.fact.entity}"
                asked[name] = _Asked(item.model_copy(update={"cluster": fact}), ruled, question)
    return asked


def _register(split: Split, ending: str) -> None:
    def opened(config: GradeConfig) -> MiniatureRules:
        return MiniatureRules(split, config.limit)

    BENCHMARKS.register(f"miniature-rules{ending}")(opened)


_register("test", "")
_register("validation", "-validation")
