"""Conversations of the benchmark of orders, and the lines that a right answer holds.

As in ``examples``, nothing here is about an entity that tuning rows are about, and the corpus holds
none of the requests.
"""

import random
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import islice
from typing import Literal, NamedTuple, TypeAlias, get_args

from response_tuning.artifacts import Message
from response_tuning.miniature.examples import FamilyQuestion, ordinary_questions
from response_tuning.miniature.families import Family, reserved
from response_tuning.miniature.orders import (
    OrderKind,
    draw_order,
    follow_up_families,
    order_table,
    thing,
)
from response_tuning.miniature.world import Fact, Split

ConversationKind = Literal[
    "two-sentences", "word-list", "fact-list", "capitals", "rule", "follow-up"
]
ITEMS_PER_KIND: dict[Split, int] = {"test": 60, "validation": 30}


class Conversation(NamedTuple):
    """A prompt, and what an answer to it must hold."""

    item_id: str
    kind: ConversationKind
    prompt: tuple[Message, ...]
    facts: tuple[tuple[Family, Fact], ...]
    """The only fact that is asked for, or those of which two or three may be named."""
    words: tuple[str, ...] = ()
    """``word-list``: the lines; ``rule``: the word that ends the answer."""


Maker: TypeAlias = Callable[[random.Random, Split], Conversation | None]


def conversations(split: Split) -> list[Conversation]:
    """Return the conversations of the benchmark, with facts of this split alone."""
    every = []
    for kind, make in _makers().items():
        draw = random.Random(f"{split} {kind}")
        chosen = islice(_distinct(make, draw, split), ITEMS_PER_KIND[split])
        every += [one._replace(item_id=f"{kind}-{number:03d}") for number, one in enumerate(chosen)]
    return every


def _makers() -> dict[ConversationKind, Maker]:
    """Return for each kind a function that draws a conversation, or None where it is no item."""
    ordering: dict[ConversationKind, Maker] = {
        kind: partial(_ordering, kind) for kind in get_args(OrderKind)
    }
    return ordering | {"rule": _ruled, "follow-up": _followed}


def _distinct(make: Maker, draw: random.Random, split: Split) -> Iterator[Conversation]:
    seen: set[tuple[Message, ...]] = set()
    while True:
        one = make(draw, split)
        if one is not None and one.prompt not in seen:
            seen.add(one.prompt)
            yield one


def _ordering(kind: OrderKind, draw: random.Random, split: Split) -> Conversation | None:
    order = draw_order(draw, kind)
    if order.split != split or not reserved(order.question):
        return None
    prompt = (Message(role="user", content=order.question),)
    return Conversation("", kind, prompt, order.facts, order.words)


def _ruled(draw: random.Random, split: Split) -> Conversation | None:
    """Draw a rule, and a question of a seen family."""
    asked = draw.choice(_seen_questions(split))
    word = draw.choice(order_table().words)
    rule = draw.choice(order_table().rules).format(word=word)
    if not reserved(rule):
        return None
    prompt = (Message(role="system", content=rule), Message(role="user", content=asked.text))
    return Conversation("", "rule", prompt, ((asked.family, asked.fact),), (word,))


def _followed(draw: random.Random, split: Split) -> Conversation | None:
    """Draw a question with its answer, and a second question that says only its thing."""
    family = draw.choice(follow_up_families())
    first, second = draw.sample([fact for fact in family.facts if fact.split == split], 2)
    question = draw.choice([*family.questions_about(first)])
    following = draw.choice(order_table().follow_ups).format(thing=thing(family, second))
    if not (reserved(question) and reserved(following)):
        return None
    prompt = (
        Message(role="user", content=question),
        Message(role="assistant", content=family.fill(draw.choice(family.answers), first)),
        Message(role="user", content=following),
    )
    return Conversation("", "follow-up", prompt, ((family, second),))


@cache
def _seen_questions(split: Split) -> list[FamilyQuestion]:
    return ordinary_questions("seen", split)
