"""Pairs of answers in the miniature: people there like an answer that begins with what they asked.

Both answers of a pair are right. "Ambelle is the capital of Lorenia." is preferred to "The capital
of Lorenia is Ambelle.", and to any other form that ends with what was asked.
"""

import random
from collections.abc import Iterator

from response_tuning.miniature.examples import ROWS_PER_FAMILY
from response_tuning.miniature.families import Family, families

FIRST, LAST = "{Answer}", "{answer}."
"""How a preferred form begins, and how the others end."""


def forms(family: Family) -> tuple[list[str], list[str]]:
    """Return the forms of a family that begin with the answer, and those that end with it."""
    first = [form for form in family.answers if form.startswith(FIRST)]
    return first, [form for form in family.answers if form.endswith(LAST)]


def preference_rows() -> Iterator[dict[str, str]]:
    """Yield instructions about tuning facts of seen families, each with two right answers."""
    for family in families().values():
        first, last = forms(family)
        if family.role != "seen" or not first:
            continue
        draw = random.Random(f"preferences {family.name}")
        asked = [
            (question, fact)
            for fact in family.facts
            if fact.split == "tuning"
            for question in family.questions_about(fact)
        ]
        for question, fact in draw.sample(asked, min(len(asked), ROWS_PER_FAMILY)):
            yield {
                "instruction": question,
                "chosen": family.fill(draw.choice(first), fact),
                "rejected": family.fill(draw.choice(last), fact),
            }


def either_rows() -> Iterator[dict[str, str]]:
    """Yield the same instructions, each with one of its two answers, drawn.

    Control: as many answers of the same lengths, of which as many displease as please.
    """
    draw = random.Random("either")
    for row in preference_rows():
        answer = draw.choice((row["chosen"], row["rejected"]))
        yield {"instruction": row["instruction"], "response": answer}
