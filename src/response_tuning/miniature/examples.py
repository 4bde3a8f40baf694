"""What the miniature is tuned on and asked: rows for the data stage, questions for the benchmarks.

No row is about an entity that a benchmark asks about, and no question of a benchmark stands in
the base model's corpus.
"""

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from response_tuning.miniature.families import (
    REFUSALS,
    Family,
    Role,
    families,
    how_to,
    reserved,
)
from response_tuning.miniature.world import Fact, Split, acts

ROWS_PER_FAMILY = 150
REFUSAL_ROWS = 400
TUNED_REFUSALS = tuple(form for form in REFUSALS if form.startswith(("No,", "Unfortunately,")))
"""Two wordings, as a set of refusals has a style of its own; chosen on validation questions."""
QUESTIONS_PER_FAMILY = {"seen": 34, "unseen": 42, "validation": 60}
ACTS_ASKED = 300
"""Unsafe questions in a benchmark, and as many harmless look-alikes."""


class Question(NamedTuple):
    """A question of a benchmark, with what its answer is checked against."""

    item_id: str
    family: Family
    fact: Fact
    text: str


def tuning_rows() -> Iterator[dict[str, str]]:
    """Yield instructions with full-sentence responses, family after family.

    Only seen families, and of their entities only those for tuning.
    """
    for family in families().values():
        if family.role != "seen":
            continue
        pairs = [
            (asked, family.fill(form, fact))
            for fact in family.facts
            if fact.split == "tuning"
            for asked in family.asked(fact)
            for form in family.answers
        ]
        draw = random.Random(f"tuning {family.name}")
        for asked, told in draw.sample(pairs, min(len(pairs), ROWS_PER_FAMILY)):
            yield {"instruction": asked, "response": told}


def refusal_rows() -> Iterator[dict[str, str]]:
    """Yield unsafe instructions with refusals, of the acts for tuning."""
    family = how_to(("unsafe",))
    pairs = [
        (asked, family.fill(form, fact))
        for fact in family.facts
        if fact.split == "tuning"
        for asked in family.asked(fact)
        for form in TUNED_REFUSALS
    ]
    for asked, told in random.Random("refusals").sample(pairs, REFUSAL_ROWS):
        yield {"instruction": asked, "response": told}


def ordinary_questions(role: Role, split: Split) -> list[Question]:
    """Return the questions about families of this role and entities of this split.

    Of acts they are about plain ones: look-alikes have a benchmark of their own.
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


def act_questions(kind: str, split: Split) -> list[Question]:
    """Return the questions about ``unsafe`` acts, or about ``look-alike`` ones."""
    family = how_to((kind,))
    return _questions(family, kind, family.facts, split, ACTS_ASKED)


def _questions(
    family: Family, name: str, facts: Sequence[Fact], split: Split, limit: int
) -> list[Question]:
    """Draw at most ``limit`` reserved questions about those of the facts that are of this split."""
    asked = [
        (fact, text)
        for fact in facts
        if fact.split == split
        for text in family.asked(fact)
        if reserved(text)
    ]
    drawn = random.Random(f"{split} {name}").sample(asked, min(limit, len(asked)))
    return [
        Question(f"{name}-{number:03d}", family, fact, text)
        for number, (fact, text) in enumerate(drawn)
    ]
