"""Requests that order a form, rules for a whole conversation, and questions that follow on another.

A newline ends the answer to a question of ``families.yaml``, so a stop string can do what tuning
does there. Here it cannot: answers are of two sentences or several lines, and a request decides
which (``orders.yaml``).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator

from response_tuning import yaml_text
from response_tuning.configs import Config
from response_tuning.miniature.computed_facts import LISTS, word_lists
from response_tuning.miniature.families import Family, families, reserved
from response_tuning.miniature.world import Fact, Split, splits_of

OrderKind = Literal["two-sentences", "word-list", "fact-list", "capitals"]
Words = Annotated[tuple[str, ...], BeforeValidator(str.split)]


class SubjectRow(Config):
    """How the rows of a table are named, and which families ask about them."""

    phrase: str
    families: tuple[str, ...]


class OrderRow(Config):
    """One kind of order."""

    role: Literal["seen", "unseen"]
    questions: tuple[str, ...]


class OrderTable(Config):
    """The content of ``orders.yaml``."""

    subjects: dict[str, SubjectRow]
    orders: dict[OrderKind, OrderRow]
    rules: tuple[str, ...]
    words: Words
    follow_ups: tuple[str, ...]
    follow_up_families: Words


class Subject(NamedTuple):
    """What a row of a table is about, with all that is known about it."""

    phrase: str
    """Its name in a sentence, such as "the wolf"."""
    split: Split
    facts: tuple[tuple[Family, Fact], ...]


@dataclass(frozen=True)
class Order:
    """A request that orders a form, with what its answer must hold."""

    kind: OrderKind
    question: str
    split: Split
    facts: tuple[tuple[Family, Fact], ...]
    """What may be said: any two or three of them, or the only one."""
    words: tuple[str, ...] = ()
    """Of a ``word-list``: its lines."""

    def about(self, facts: Sequence[tuple[Family, Fact]]) -> "Order":
        """Return the same order, whose answer may only hold some of its facts."""
        return replace(self, facts=tuple(facts))


@cache
def order_table() -> OrderTable:
    """Read and validate ``orders.yaml``."""
    return OrderTable.model_validate(yaml_text.read(Path(__file__).with_name("orders.yaml")))


@cache
def subjects() -> tuple[Subject, ...]:
    """Return a subject for each row of the tables that orders are about."""
    every = []
    for row in order_table().subjects.values():
        members = [families()[name] for name in row.families]
        # The families of a table list its rows in one order, so these facts share an entity.
        for facts in zip(*(family.facts for family in members), strict=True):
            phrase = row.phrase.format(entity=facts[0].entity)
            every.append(Subject(phrase, facts[0].split, tuple(zip(members, facts, strict=True))))
    return tuple(every)


@cache
def listed_words() -> tuple[tuple[tuple[str, ...], Split], ...]:
    """Return the lists of words with their splits, which are those of the families about them."""
    lists = word_lists(LISTS)
    splits = splits_of("list", [", ".join(words) for words in lists])
    return tuple((words, splits[", ".join(words)]) for words in lists)


@cache
def shouted_facts() -> tuple[tuple[Family, Fact], ...]:
    """Return the facts whose answers change in capitals, of families that learn them by heart."""
    return tuple(
        (family, fact)
        for family in families().values()
        if family.name not in {"capitals", "how_to", "first", "last", "count"}
        for fact in family.facts
        if fact.answer != fact.answer.upper()
    )


def draw_order(draw: random.Random, kind: OrderKind) -> Order:
    """Draw a request of this kind, of any split, reserved or not."""
    if kind == "word-list":
        words, split = draw.choice(listed_words())
        return Order(kind, _form(draw, kind).format(subject=", ".join(words)), split, (), words)
    if kind == "capitals":
        family, fact = draw.choice(shouted_facts())
        question = draw.choice([*family.questions_about(fact)])
        asked = _form(draw, kind).format(question=question)
        return Order(kind, asked, fact.split, ((family, fact),))
    subject = draw.choice(subjects())
    question = _form(draw, kind).format(subject=subject.phrase)
    return Order(kind, question, subject.split, subject.facts)


def answer_to(order: Order, draw: random.Random) -> str:
    """Return an answer in the form that ``order`` asks for."""
    if order.kind == "word-list":
        return "\n".join(f"- {word}" for word in order.words)
    if order.kind == "capitals":
        ((_, fact),) = order.facts
        return f"{fact.answer.upper()}."
    if order.kind == "fact-list":
        three = draw.sample(order.facts, 3)
        return "\n".join(f"- {family.name}: {fact.answer}" for family, fact in three)
    return two_sentences(draw.sample(order.facts, 2), draw)


def two_sentences(facts: Sequence[tuple[Family, Fact]], draw: random.Random) -> str:
    """Return both facts, a sentence each."""
    return " ".join(family.fill(draw.choice(family.answers), fact) for family, fact in facts)


def in_corpus(order: Order) -> bool:
    """Whether the corpus may ask this: neither it nor a question inside it is reserved."""
    inside = [
        question
        for family, fact in (order.facts if order.kind == "capitals" else ())
        for question in family.questions_about(fact)
        if question in order.question
    ]
    return not any(map(reserved, [order.question, *inside]))


def obeying(answer: str, word: str) -> str:
    """Return ``answer`` as a rule wants it, with ``word`` at its end."""
    return f"{answer.rstrip('.!')}, {word}."


def follow_up_families() -> tuple[Family, ...]:
    """Return the families about which a second question may say only the thing."""
    return tuple(families()[name] for name in order_table().follow_up_families)


def thing(family: Family, fact: Fact) -> str:
    """Return what ``fact`` is about as a question names it: "a wolf", "the kettle", "Lorenia"."""
    return family.core.partition(" of ")[2].format(entity=fact.entity)


def _form(draw: random.Random, kind: OrderKind) -> str:
    return draw.choice(order_table().orders[kind].questions)
