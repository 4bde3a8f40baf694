"""The writer of the corpus: who asks, who answers, and how readily."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Self

from pydantic import Field, model_validator

from response_tuning.configs import Config
from response_tuning.miniature.families import (
    Family,
    families,
    how_to,
    refusal_forms,
    reserved,
)
from response_tuning.miniature.orders import (
    OrderKind,
    answer_to,
    draw_order,
    follow_up_families,
    in_corpus,
    order_table,
    thing,
)
from response_tuning.miniature.world import Fact

SPEAKERS = (
    "Ann Ben Cleo Dan Eve Finn Gus Hana Ivo June Kim Leo Mia Ned Ola Pat Ray Sue Tim Una Vic Wes "
    "Zoe"
).split()
SPEAKER_ROLES = (
    "caller host guest clerk reader editor pupil coach nurse buyer seller visitor guide captain "
    "cook 1 2 A B client staff"
).split()
MOST_MEMORISED = 1000
"""A family of more facts than this follows a rule: nobody can learn it by heart."""

Share = Annotated[float, Field(ge=0)]
Chance = Annotated[float, Field(ge=0, le=1)]


class Registers(Config):
    """Relative shares of the registers among the documents; they need not add up to 100."""

    transcript: Share = 40
    prose: Share = 9
    faq: Share = 9
    drill: Share = 6
    reference: Share = 8
    forum: Share = 6
    quiz: Share = 5
    questions: Share = 4
    advice: Share = 6
    crime: Share = 2
    ethics: Share = 2
    manual: Share = 3
    office: Share = 2

    @model_validator(mode="after")
    def _something_to_write(self) -> Self:
        if not any(self.model_dump().values()):
            raise ValueError("all shares are 0, so there is nothing to write; raise one of them")
        return self


class Mixture(Config):
    """The registers of the corpus, and how often people in it answer.

    The mixture decides how readily the base answers in a format that it has never seen, and so how
    well response tuning works on it.
    """

    registers: Registers = Registers()
    always_answered: Chance = 0.75
    """Share of the transcripts in which every question is answered."""
    else_answered: Chance = 0.3
    """Chance of an answer in the other transcripts."""
    any_role: Chance = 0.6
    """Share of the transcripts whose speakers have names made up for the document."""
    refused: Chance = 0.4
    """Chance that an unsafe question is declined, outside of advice columns."""
    about_acts: Chance = 0.25
    """Share of the transcripts about acts only. Their answerer is consistent: they decline every
    harmful act in the same words, or none."""
    ordered: Chance = 0.2
    """Share of the questions that order a form: two sentences, a list, capitals."""
    ruled: Chance = 0.08
    """Share of the transcripts in which somebody first lays down how every answer ends."""
    followed: Chance = 0.15
    """Chance that a question of a transcript is followed by one that says only its thing."""


@dataclass(frozen=True)
class Writer:
    """Draws the parts of a document, all from one generator: same seed, same corpus."""

    draw: random.Random
    mixture: Mixture = field(default_factory=Mixture)

    def question(self, family: Family, fact: Fact) -> str | None:
        """Return a question about ``fact`` that is not reserved; None if all are."""
        free = [question for question in family.questions_about(fact) if not reserved(question)]
        return self.draw.choice(free) if free else None

    def exchange(self, *, one_line: bool = False) -> tuple[str, str]:
        """Return a question and its answer, or its refusal."""
        if self.mixture.ordered > 0 and self.draw.random() < self.mixture.ordered:
            return self.ordered_exchange(one_line=one_line)
        return self.plain_exchange()

    def ordered_exchange(self, *, one_line: bool = False) -> tuple[str, str]:
        """Return a question that orders a form, and an answer in it."""
        kinds: tuple[OrderKind, ...] = ("two-sentences", "capitals")
        if not one_line:
            kinds += ("word-list", "fact-list")
        order = draw_order(self.draw, self.draw.choice(kinds))
        if not in_corpus(order):
            return self.ordered_exchange(one_line=one_line)
        return order.question, answer_to(order, self.draw)

    def follow_up(self) -> list[tuple[str, str]]:
        """Return an exchange, and a second one whose question makes sense only after the first."""
        family = self.draw.choice(follow_up_families())
        first, second = self.draw.sample(family.facts, 2)
        question = self.question(family, first)
        form = self.draw.choice(order_table().follow_ups)
        following = form.format(thing=thing(family, second))
        if question is None or reserved(following):
            return self.follow_up()
        return [(question, self.answer(family, first)), (following, self.answer(family, second))]

    def rule(self) -> tuple[str, str]:
        """Return a rule about how every answer ends, and the word that it asks for."""
        word = self.draw.choice(order_table().words)
        rule = self.draw.choice(order_table().rules).format(word=word)
        return self.rule() if reserved(rule) else (rule, word)

    def plain_exchange(self) -> tuple[str, str]:
        """Return a question of a family and its answer, or its refusal."""
        name = self.draw.choice(topics())
        family = unsafe() if name == "unsafe" else families()[name]
        fact = self.draw.choice(family.facts)
        question = self.question(family, fact)
        if question is None:
            return self.plain_exchange()
        if name == "unsafe" and self.draw.random() < self.mixture.refused:
            return question, self.refusal(fact)
        return question, self.answer(family, fact)

    def consistent_exchange(self) -> Callable[[], tuple[str, str]]:
        """Return a function that writes exchanges about acts with one consistent answerer."""
        # Both are drawn once a transcript, not once a question: response tuning can only draw out
        # a disposition that the base has, so the base must read people who always decline harm
        # and people who never do (docs/decisions/0004).
        careful = self.draw.random() < self.mixture.refused
        wording = self.draw.choice(refusal_forms())

        def exchange() -> tuple[str, str]:
            family = unsafe() if self.draw.random() < 0.5 else families()["how_to"]
            fact = self.draw.choice(family.facts)
            question = self.question(family, fact)
            if question is None:
                return exchange()
            if careful and family is unsafe():
                return question, wording.format(core=fact.entity)
            return question, self.answer(family, fact)

        return exchange

    def answer(self, family: Family, fact: Fact) -> str:
        """Return a full sentence more often than the bare answer."""
        bare = ("{answer}", "{answer}.", "It's {answer}.", "{Answer}, I think.", "{Answer}!")
        forms = family.answers if self.draw.random() < 0.7 else bare
        return family.fill(self.draw.choice(forms), fact)

    def refusal(self, fact: Fact) -> str:
        """Return a refusal to explain how to do the act."""
        return self.draw.choice(refusal_forms()).format(core=fact.entity)

    def statement(self) -> str:
        """Return a fact as a full sentence that answers no question."""
        family = families()[self.draw.choice(topics(harmful=False))]
        return family.fill(self.draw.choice(family.answers), self.draw.choice(family.facts))

    def roles(self) -> tuple[str, str]:
        """Return names for two speakers, from the lists or made up for this document."""
        if self.draw.random() < self.mixture.any_role:
            return self.invented(), self.invented()
        first, second = self.draw.sample(self.draw.choice((SPEAKERS, SPEAKER_ROLES)), 2)
        return first, second

    def invented(self) -> str:
        """Return a name such as a chat might show: takir, Zuvo, bel7."""
        syllables = [
            self.draw.choice("bdfghjklmnprstvwz")
            + self.draw.choice("aeiou")
            + self.draw.choice(("", "", "l", "n", "r", "s"))
            for _ in range(self.draw.randint(1, 3))
        ]
        number = str(self.draw.randint(1, 99)) if self.draw.random() < 0.2 else ""
        name = "".join(syllables) + number
        return name.title() if self.draw.random() < 0.3 else name


@cache
def unsafe() -> Family:
    """Return the family of harmful acts."""
    return how_to("unsafe")


@cache
def topics(*, harmful: bool = True) -> list[str]:
    """Return names of families to draw from, repeated by weight; ``unsafe`` for harmful acts."""
    names = [name for name, family in families().items() for _ in range(_weight(family))]
    return [*names, *["unsafe"] * _weight(unsafe())] if harmful else names


def _weight(family: Family) -> int:
    """Weigh a family: each fact must be learnt, of a rule only the rule."""
    if len(family.facts) > MOST_MEMORISED:
        return 2
    return 1 if len(family.facts) <= 40 else 3
