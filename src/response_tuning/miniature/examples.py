"""Rows that the miniature is tuned on, and questions of its benchmarks.

No row is about an entity that a benchmark asks about, and the base model's corpus holds no question
of a benchmark.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from response_tuning.miniature.families import (
    Family,
    FamilyRole,
    families,
    how_to,
    refusal_forms,
    reserved,
)
from response_tuning.miniature.orders import OrderKind, answer_to, draw_order, order_table
from response_tuning.miniature.world import ActKind, Fact, Split, acts

ROWS_PER_FAMILY = 150
REFUSAL_ROWS = 400
TUNED_REFUSALS = ("No,", "Unfortunately,")
"""Openings of the two forms that refusal rows use: a real set of refusals also has one style. They
were chosen on validation questions."""
QUESTIONS_PER_FAMILY = {"seen": 34, "unseen": 42, "validation": 60}
QUESTIONS_ABOUT_ACTS = 300
"""Unsafe questions in a benchmark, and as many about harmless look-alikes."""


class FamilyQuestion(NamedTuple):
    """A question of a benchmark, and the family and fact that its answer is checked against."""

    item_id: str
    family: Family
    fact: Fact
    text: str


def tuning_rows() -> Iterator[dict[str, str]]:
    """Yield instructions with responses about the tuning facts of seen families.

    A response is a full sentence, or has the form of an order that is seen.
    """
    for family in families().values():
        if family.role == "seen":
            yield from family_rows(family, ROWS_PER_FAMILY)
    for kind, order in order_table().orders.items():
        if order.role == "seen":
            yield from order_rows(kind)


def family_rows(family: Family, limit: int) -> Iterator[dict[str, str]]:
    """Yield at most ``limit`` questions about the tuning facts of one family, with answers."""
    draw = random.Random(f"tuning {family.name}")
    yield from _rows(_tuning_pairs(draw, family, family.answers, limit))


def order_rows(kind: OrderKind) -> Iterator[dict[str, str]]:
    """Yield requests of one kind with answers of its form, from tuning facts of seen families."""
    draw = random.Random(f"tuning {kind}")
    pairs: dict[tuple[str, str], None] = {}  # as a set that keeps the order of the draws
    while len(pairs) < ROWS_PER_FAMILY:
        drawn = draw_order(draw, kind)
        order = drawn.about([pair for pair in drawn.facts if pair[0].role == "seen"])
        if order.split == "tuning" and len(order.facts) != 1:
            pairs[order.question, answer_to(order, draw)] = None
    yield from _rows(pairs)


def refusal_rows(openings: tuple[str, ...] = TUNED_REFUSALS) -> Iterator[dict[str, str]]:
    """Yield unsafe instructions about the acts for tuning, with refusals that open so."""
    forms = [form for form in refusal_forms() if form.startswith(openings)]
    draw = random.Random("refusals")
    yield from _rows(_tuning_pairs(draw, how_to("unsafe"), forms, REFUSAL_ROWS))


def refusals_by_wording() -> dict[str, Callable[[], Iterator[dict[str, str]]]]:
    """Return a function for each way to decline, by its first word: refusals of one wording."""
    openings = [form.partition(" ")[0] for form in refusal_forms()]
    return {opening.rstrip(",").lower(): partial(refusal_rows, (opening,)) for opening in openings}


def _tuning_pairs(
    draw: random.Random, family: Family, responses: Sequence[str], limit: int
) -> list[tuple[str, str]]:
    """Draw questions about tuning facts, each with a form of a response; at most ``limit``."""
    choices = [
        (fact, question, response)
        for fact in family.facts
        if fact.split == "tuning"
        for question in family.questions
        for response in responses
    ]
    # Only what is drawn is filled in: a family has up to 44,800 choices.
    return [
        (family.fill(question, fact), family.fill(response, fact))
        for fact, question, response in draw.sample(choices, min(len(choices), limit))
    ]


def _rows(pairs: Iterable[tuple[str, str]]) -> Iterator[dict[str, str]]:
    return ({"instruction": question, "response": response} for question, response in pairs)


def ordinary_questions(role: FamilyRole, split: Split) -> list[FamilyQuestion]:
    """Return the questions about families of this role and facts of this split.

    ``how_to`` asks about plain acts only: another benchmark asks about the look-alikes.
    """
    plain = {act.words for act in acts() if act.kind == "plain"}
    return [
        question
        for family in families().values()
        if family.role == role
        for question in _questions(
            family,
            family.name,
            [fact for fact in family.facts if family.name != "how_to" or fact.entity in plain],
            split,
            QUESTIONS_PER_FAMILY[role],
        )
    ]


def act_questions(kind: ActKind, split: Split) -> list[FamilyQuestion]:
    """Return the questions about ``unsafe`` acts, or about ``look-alike`` ones."""
    family = how_to(kind)
    return _questions(family, kind, family.facts, split, QUESTIONS_ABOUT_ACTS)


def _questions(
    family: Family, name: str, facts: Sequence[Fact], split: Split, limit: int
) -> list[FamilyQuestion]:
    """Draw at most ``limit`` reserved questions about the facts of this split."""
    candidates = [
        (fact, text)
        for fact in facts
        if fact.split == split
        for text in family.questions_about(fact)
        if reserved(text)
    ]
    # Reserved questions only: the corpus holds none of them, so that the base has not read a test
    # question. Each family has its own generator: a change in one keeps the items of the others.
    drawn = random.Random(f"{split} {name}").sample(candidates, min(limit, len(candidates)))
    return [
        FamilyQuestion(f"{name}-{number:03d}", family, fact, text)
        for number, (fact, text) in enumerate(drawn)
    ]
