"""Who writes the corpus: what is asked and answered in it, by whom, and how willingly."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Self

from pydantic import Field, model_validator

from response_tuning.configs import Config
from response_tuning.miniature import families as tasks
from response_tuning.miniature.families import REFUSALS, Family, reserved
from response_tuning.miniature.world import Fact

SPEAKERS = (
    "Ann Ben Cleo Dan Eve Finn Gus Hana Ivo June Kim Leo Mia Ned Ola Pat Ray Sue Tim Una Vic Wes "
    "Zoe"
).split()
ROLES = (
    "caller host guest clerk reader editor pupil coach nurse buyer seller visitor guide captain "
    "cook 1 2 A B client staff"
).split()
RULE = 1000
"""A table of more facts than this is a rule: it cannot be learnt by heart."""

Share = Annotated[float, Field(ge=0)]
Chance = Annotated[float, Field(ge=0, le=1)]


class Registers(Config):
    """Shares of the registers among the documents; they need not add up to anything."""

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
            raise ValueError("all shares are 0, which leaves nothing to write; raise one of them")
        return self


class Mixture(Config):
    """What the corpus is made of, and how willing people are to answer in it.

    It decides how readily the base answers in a format that it has never seen, and with that how
    well response tuning works on it.
    """

    registers: Registers = Registers()
    always_answered: Chance = 0.75
    """Share of the transcripts in which every question is answered."""
    else_answered: Chance = 0.3
    """Chance of an answer in the other transcripts."""
    any_role: Chance = 0.6
    """Share of the transcripts whose speakers have names that may stand nowhere else."""
    refused: Chance = 0.4
    """Chance that an unsafe question is declined where people are not asked for advice."""
    about_acts: Chance = 0.25
    """Share of the transcripts that are about acts alone, with somebody who is of one mind:
    everything harmful is declined there, always in the same words, or nothing is."""


@dataclass(frozen=True)
class Writer:
    """Writes documents; everything is drawn from one generator."""

    draw: random.Random
    mixture: Mixture = field(default_factory=Mixture)

    def question(self, family: Family, fact: Fact) -> str | None:
        """Return a way to ask for ``fact`` that is not reserved; None if there is none."""
        free = [asked for asked in family.asked(fact) if not reserved(asked)]
        return self.draw.choice(free) if free else None

    def exchange(self) -> tuple[str, str]:
        """Return a question and its answer, or its refusal."""
        name = self.draw.choice(topics())
        family = unsafe() if name == "unsafe" else tasks.families()[name]
        fact = self.draw.choice(family.facts)
        asked = self.question(family, fact)
        if asked is None:
            return self.exchange()
        if name == "unsafe" and self.draw.random() < self.mixture.refused:
            return asked, self.refusal(fact)
        return asked, self.answer(family, fact)

    def of_one_mind(self) -> Callable[[], tuple[str, str]]:
        """Return what writes exchanges about acts with somebody who keeps to what they do."""
        careful = self.draw.random() < self.mixture.refused
        wording = self.draw.choice(REFUSALS)

        def exchange() -> tuple[str, str]:
            family = unsafe() if self.draw.random() < 0.5 else tasks.families()["how_to"]
            fact = self.draw.choice(family.facts)
            asked = self.question(family, fact)
            if asked is None:
                return exchange()
            if careful and family is unsafe():
                return asked, wording.format(core=fact.entity)
            return asked, self.answer(family, fact)

        return exchange

    def answer(self, family: Family, fact: Fact) -> str:
        """Return a full sentence more often than the bare answer."""
        bare = ("{answer}", "{answer}.", "It's {answer}.", "{Answer}, I think.", "{Answer}!")
        forms = family.answers if self.draw.random() < 0.7 else bare
        return family.fill(self.draw.choice(forms), fact)

    def refusal(self, fact: Fact) -> str:
        """Return a refusal to say how ``fact.entity`` is done."""
        return self.draw.choice(REFUSALS).format(core=fact.entity)

    def statement(self) -> str:
        """Return a fact as a full sentence that nobody asked for."""
        family = tasks.families()[self.draw.choice(topics(harmful=False))]
        return family.fill(self.draw.choice(family.answers), self.draw.choice(family.facts))

    def roles(self) -> tuple[str, str]:
        """Return names for two speakers: known ones, or made up for this document."""
        if self.draw.random() < self.mixture.any_role:
            return self.invented(), self.invented()
        first, second = self.draw.sample(self.draw.choice((SPEAKERS, ROLES)), 2)
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
    return tasks.how_to(("unsafe",))


@cache
def topics(*, harmful: bool = True) -> list[str]:
    """What is asked about: the more there is to know of a family, the more often."""
    names = [name for name, family in tasks.families().items() for _ in range(_weight(family))]
    return [*names, *["unsafe"] * _weight(unsafe())] if harmful else names


def _weight(family: Family) -> int:
    """Weigh a family: facts have to be learnt one by one, rules once."""
    if len(family.facts) > RULE:
        return 2
    return 1 if len(family.facts) <= 40 else 3
