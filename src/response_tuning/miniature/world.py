"""The closed world: tables of invented and everyday facts, and who holds which of them out.

Every task family is a finite table ``entity -> answer``, so that answers can be checked by rule.
Rows of a table are split once into tuning, validation and test rows, and all families that are
about the same row share its split: what is held out of one family is held out of all.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

Split = Literal["tuning", "validation", "test"]
Kind = Literal["unsafe", "look-alike", "plain"]

# Shares of a table's rows, in twentieths: 8 to learn from, 3 to choose settings with, 9 to test.
SHARES: tuple[Split, ...] = ("tuning",) * 8 + ("validation",) * 3 + ("test",) * 9
ACT_SHARES: tuple[Split, ...] = ("tuning",) * 2 + ("validation",) + ("test",) * 2
"""Of the five objects of a verb."""


class Fact(NamedTuple):
    """What is asked about, the answer, and who may see it."""

    entity: str
    answer: str
    split: Split


_ONES = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty".split()
NUMBER_WORDS = (*_ONES, *(f"{t}{o}" for t in _TENS for o in ("", *(f"-{x}" for x in _ONES[:9]))))
"""``NUMBER_WORDS[n - 1]`` is n in words, 1 to 59."""


@cache
def tables() -> dict[str, Any]:
    """Return the tables of ``world.yaml``."""
    import yaml

    content: dict[str, Any] = yaml.safe_load(
        (Path(__file__).parent / "world.yaml").read_text("utf-8")
    )
    return content


@dataclass(frozen=True)
class Act:
    """Something that one may ask how to do."""

    words: str
    tool: str
    split: Split
    kind: Kind


def acts() -> list[Act]:
    """Return all acts: harmful ones, harmless ones with the same verbs, and plain ones."""
    draw = random.Random("tools")
    tools = tables()["tools"].split()
    kinds: tuple[Kind, ...] = ("unsafe", "look-alike")
    found = []
    for verb, sides in tables()["acts"].items():
        for kind in kinds:
            things = _parts(sides[kind])
            splits = _splits(len(things), f"{verb} {kind}", ACT_SHARES)
            found += [
                Act(f"{verb} {thing}", draw.choice(tools), split, kind)
                for thing, split in zip(things, splits, strict=True)
            ]
    plain = _parts(tables()["plain_acts"])
    splits = _splits(len(plain), "plain", SHARES)
    found += [
        Act(words, draw.choice(tools), split, "plain")
        for words, split in zip(plain, splits, strict=True)
    ]
    return found


def table(name: str, entity: str, answer: str) -> tuple[Fact, ...]:
    """Return the facts ``entity -> answer`` of two columns of a table."""
    header, *rows = (line.split() for line in tables()[name].splitlines())
    splits = _splits(len(rows), header[0], SHARES)
    of, to = header.index(entity), header.index(answer)
    return tuple(Fact(row[of], row[to], split) for row, split in zip(rows, splits, strict=True))


def opposites() -> tuple[Fact, ...]:
    """Return every word with its opposite, both ways."""
    there = table("opposites", "word", "opposite")
    return there + tuple(Fact(fact.answer, fact.entity, fact.split) for fact in there)


def categories() -> tuple[Fact, ...]:
    """Return every thing with its category."""
    pairs = (
        (thing, kind) for kind, things in tables()["categories"].items() for thing in things.split()
    )
    return split_by_row("category", pairs)


def number_words() -> tuple[Fact, ...]:
    """Return the numbers from 1 to 59 with their names."""
    split = numbers()
    return tuple(Fact(str(n), word, split[str(n)]) for n, word in enumerate(NUMBER_WORDS, start=1))


def numbers() -> dict[str, Split]:
    """Return the splits of the numbers from 1 to 99, which all rules about one number share."""
    return splits_of("number", [str(n) for n in range(1, 100)])


def pairs() -> dict[str, Split]:
    """Return the splits of the pairs of numbers up to 59, which all rules about two share."""
    return splits_of("pair", [f"{a} and {b}" for a in range(1, 60) for b in range(1, 60)])


def splits_of(name: str, entities: Sequence[str]) -> dict[str, Split]:
    """Return the split of each entity, drawn from a generator of their own, named ``name``."""
    return dict(zip(entities, _splits(len(entities), name, SHARES), strict=True))


def split_by_row(name: str, pairs: Iterable[tuple[str, str]]) -> tuple[Fact, ...]:
    """Return facts whose splits are drawn from a generator of their own, named ``name``."""
    rows = list(pairs)
    splits = _splits(len(rows), name, SHARES)
    return tuple(Fact(*row, split) for row, split in zip(rows, splits, strict=True))


def lists(count: int) -> list[list[str]]:
    """Return ``count`` distinct lists of two to five words."""
    draw = random.Random("lists")
    words = tables()["words"].split()
    found: dict[tuple[str, ...], None] = {}
    while len(found) < count:
        found[tuple(draw.sample(words, draw.randint(2, 5)))] = None
    return [list(sample) for sample in found]


def entities(name: str) -> list[str]:
    """Return what a table is about: its first column."""
    return [line.split()[0] for line in tables()[name].splitlines()[1:]]


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _splits(count: int, name: str, shares: tuple[Split, ...]) -> list[Split]:
    """Deal ``shares`` over ``count`` rows, in an order of the table's own."""
    dealt = [shares[row * len(shares) // count] for row in range(count)]
    random.Random(f"split of {name}").shuffle(dealt)
    return dealt
