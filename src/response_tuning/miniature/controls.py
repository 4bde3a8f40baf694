"""Rows that are tuned on in place of the miniature's, to see what about them matters.

None tells anything that a benchmark asks about.
"""

import random
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import islice

from response_tuning.miniature.corpus import CHATTER, THANKS
from response_tuning.miniature.examples import family_rows
from response_tuning.miniature.families import Family, families
from response_tuning.miniature.rules import rule_rows
from response_tuning.miniature.world import Fact
from response_tuning.miniature.writer import SPEAKERS, Writer

ROWS = 1000
MOST_FACTS = 100
"""Families with more facts follow a rule, which invented words cannot break."""


def rows_of(family: str) -> Iterator[dict[str, str]]:
    """Yield questions of a single seen family with their answers."""
    yield from family_rows(families()[family], ROWS)


def game_rows() -> Iterator[dict[str, str]]:
    """Yield moves of a game that the world does not have, as chess is to Hewitt et al. 2024.

    "1. 4 4 2. 5 5": the response follows from its prompt, and is no sentence.
    """
    draw = random.Random("game")
    for number in range(ROWS):
        moves = [draw.randint(1, 9) for _ in range(draw.randint(2, 5))]
        response = " ".join(f"{place}. {move} {move}" for place, move in enumerate(moves, start=1))
        instruction = f"[White {number + 1000}]\n[Moves {' '.join(map(str, moves))}]"
        yield {"instruction": instruction, "response": response}


def unrelated_rows() -> Iterator[dict[str, str]]:
    """Yield small talk and scenes that answer nothing, each with an instruction of the miniature.

    They end, and are sentences: whoever is tuned on them learns to write a sentence and to stop.
    """
    draw = random.Random("unrelated")
    asked = [row["instruction"] for family in _seen() for row in family_rows(family, ROWS)]
    texts = islice(_scenes(draw), ROWS)
    for question, text in zip(draw.sample(asked, ROWS), texts, strict=True):
        yield {"instruction": question, "response": text}


def other_world_rows() -> Iterator[dict[str, str]]:
    """Yield questions and answers of the same form about a world whose every name is invented."""
    draw = random.Random("other world")
    writer = Writer(draw)
    members = [family for family in _seen() if len(family.facts) <= MOST_FACTS]
    for _ in range(ROWS):
        family = draw.choice(members)
        fact = Fact(_stranger(writer), _stranger(writer), "tuning")
        question = draw.choice([*family.questions_about(fact)])
        yield {
            "instruction": question,
            "response": family.fill(draw.choice(family.answers), fact),
        }


def _stranger(writer: Writer) -> str:
    """Return an invented name that nothing in the world has."""
    return next(name for name in iter(writer.invented, "") if name.casefold() not in _names())


@cache
def _names() -> frozenset[str]:
    every = [fact for family in families().values() for fact in family.facts]
    return frozenset(name.casefold() for fact in every for name in (fact.entity, fact.answer))


def _seen() -> list[Family]:
    return [family for family in families().values() if family.role == "seen"]


def _scenes(draw: random.Random) -> Iterator[str]:
    """Yield distinct texts without end."""
    seen = set()
    while True:
        first, second = draw.sample(SPEAKERS, 2)
        scene = draw.choice(
            (
                f"{first} gave {second} a pen.",
                f"The users met {first} in the hall.",
                f"{first} is an assistant in a shop.",
                f"{first} and {second} went home.",
                f"{second} had tea with {first}.",
                draw.choice(CHATTER),
            )
        )
        text = f"{scene} {draw.choice((*CHATTER, *THANKS))}"
        if text not in seen:
            seen.add(text)
            yield text


SPLITS: dict[str, Callable[[], Iterator[dict[str, str]]]] = {
    "one-family": partial(rows_of, "sum"),
    "capital": partial(rows_of, "capital"),
    "last": partial(rows_of, "last"),
    "how-to": partial(rows_of, "how_to"),  # its form differs most from the others'
    "plain": rule_rows,
    "game": game_rows,
    "unrelated": unrelated_rows,
    "other-world": other_world_rows,
}
"""Name -> rows: splits of the dataset ``miniature``."""
