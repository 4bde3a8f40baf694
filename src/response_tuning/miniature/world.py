"""The closed world of ``world.yaml``: tables of invented and everyday facts, split by row.

Every task family is a finite mapping ``entity -> answer``, so that a rule can check the answers.
Rows of a table are split once into tuning, validation and test rows, and all families about the
same row share its split: whatever one family holds out, all hold out.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from response_tuning import yaml_text

Split = Literal["tuning", "validation", "test"]
ActKind = Literal["unsafe", "look-alike", "plain"]

# Shares of a table's rows, in twentieths: 8 to learn from, 3 to choose settings with, 9 to test.
SHARES: tuple[Split, ...] = ("tuning",) * 8 + ("validation",) * 3 + ("test",) * 9
ACT_SHARES: tuple[Split, ...] = ("tuning",) * 2 + ("validation",) + ("test",) * 2
"""Splits of the five objects of a verb."""


class Fact(NamedTuple):
    """An entity, the answer to a question about it, and the split that may use the fact."""

    entity: str
    answer: str
    split: Split


@cache
def tables() -> dict[str, Any]:
    """Return the tables of ``world.yaml``."""
    content: dict[str, Any] = yaml_text.read(Path(__file__).with_name("world.yaml"))
    return content


@dataclass(frozen=True)
class Act:
    """Something to ask how to do, and the tool that it takes."""

    words: str
    tool: str
    split: Split
    kind: ActKind


def acts() -> list[Act]:
    """Return all acts: harmful ones, harmless ones with the same verbs, and plain ones."""
    # One generator deals all tools, in the order of the file: another order of these loops would
    # give every act another tool, and so another corpus and another base model.
    draw = random.Random("tools")
    tools = tables()["tools"].split()
    kinds: tuple[ActKind, ...] = ("unsafe", "look-alike")
    all_acts = []
    for verb, objects in tables()["acts"].items():
        for kind in kinds:
            things = _comma_separated(objects[kind])
            splits = _splits(len(things), f"{verb} {kind}", ACT_SHARES)
            all_acts += [
                Act(f"{verb} {thing}", draw.choice(tools), split, kind)
                for thing, split in zip(things, splits, strict=True)
            ]
    plain = _comma_separated(tables()["plain_acts"])
    splits = _splits(len(plain), "plain", SHARES)
    all_acts += [
        Act(words, draw.choice(tools), split, "plain")
        for words, split in zip(plain, splits, strict=True)
    ]
    return all_acts


def table(name: str, entity: str, answer: str) -> tuple[Fact, ...]:
    """Return the facts ``entity -> answer`` of two columns of a table."""
    header, *rows = (line.split() for line in tables()[name].splitlines())
    splits = _splits(len(rows), header[0], SHARES)
    source, target = header.index(entity), header.index(answer)
    return tuple(
        Fact(row[source], row[target], split) for row, split in zip(rows, splits, strict=True)
    )


def splits_of(name: str, entities: Sequence[str]) -> dict[str, Split]:
    """Return the split of each entity, drawn from a generator of their own, named ``name``."""
    return dict(zip(entities, _splits(len(entities), name, SHARES), strict=True))


def split_by_row(name: str, pairs: Iterable[tuple[str, str]]) -> tuple[Fact, ...]:
    """Return facts whose splits are drawn from a generator of their own, named ``name``."""
    rows = list(pairs)
    splits = _splits(len(rows), name, SHARES)
    return tuple(Fact(*row, split) for row, split in zip(rows, splits, strict=True))


def entities(name: str) -> list[str]:
    """Return what a table is about: its first column."""
    return [line.split()[0] for line in tables()[name].splitlines()[1:]]


def _comma_separated(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]


def _splits(count: int, name: str, shares: tuple[Split, ...]) -> list[Split]:
    """Deal ``shares`` over ``count`` rows, in an order that only ``name`` decides."""
    dealt = [shares[row * len(shares) // count] for row in range(count)]
    random.Random(f"split of {name}").shuffle(dealt)
    return dealt
