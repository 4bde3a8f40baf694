"""The task families of ``families.yaml``: each asks one kind of question about one set of facts."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from string import Formatter
from typing import Annotated, Literal

from pydantic import AfterValidator

from response_tuning import yaml_text
from response_tuning.configs import Config
from response_tuning.miniature.computed_facts import COMPUTED_FACTS, how_to_facts
from response_tuning.miniature.world import ActKind, Fact, table

FamilyRole = Literal["seen", "unseen", "validation"]
PLACEHOLDERS = frozenset({"core", "entity", "answer", "Core", "Entity", "Answer"})


def _with_known_placeholders(form: str) -> str:
    """Check a form at load: a typo would otherwise only fail when a document draws the form."""
    names = {name for _, name, _, _ in Formatter().parse(form) if name is not None}
    if unknown := sorted(names - PLACEHOLDERS):
        raise ValueError(f"unknown placeholder '{{{unknown[0]}}}' in '{form}'")
    return form


Form = Annotated[str, AfterValidator(_with_known_placeholders)]


class ColumnFacts(Config):
    """Facts in two columns of a table of ``world.yaml``."""

    table: str
    entity: str
    answer: str

    def facts(self) -> tuple[Fact, ...]:
        """Return a fact for each row."""
        return table(self.table, self.entity, self.answer)


class ComputedFacts(Config):
    """Facts from one of ``COMPUTED_FACTS``."""

    computed: str

    def facts(self) -> tuple[Fact, ...]:
        """Return what the function computes."""
        return COMPUTED_FACTS[self.computed]()


class Phrasings(Config):
    """Ways to ask and to answer that many families share."""

    questions: tuple[Form, ...]
    answers: tuple[Form, ...]


class FamilyRow(Config):
    """One family as ``families.yaml`` has it."""

    role: FamilyRole
    core: Form
    facts: ColumnFacts | ComputedFacts
    phrasings: Literal["name", "act"] = "name"
    questions: tuple[Form, ...] = ()
    """Ways to ask that only this family has."""
    answers: tuple[Form, ...] = ()


class FamilyTable(Config):
    """The content of ``families.yaml``."""

    phrasings: dict[Literal["name", "act"], Phrasings]
    refusals: tuple[Form, ...]
    families: dict[str, FamilyRow]


@dataclass(frozen=True)
class Family:
    """One kind of question about one set of facts."""

    name: str
    role: FamilyRole
    core: str
    """What is asked for, with ``{entity}``."""
    facts: tuple[Fact, ...]
    questions: tuple[str, ...]
    """Ways to ask, with ``{core}`` or ``{entity}``."""
    answers: tuple[str, ...]
    """Ways to answer in a full sentence, with ``{core}``, ``{entity}`` and ``{answer}``."""

    @cached_property
    def candidates(self) -> frozenset[str]:
        """Every answer to any question of the family."""
        return frozenset(fact.answer for fact in self.facts)

    def fill(self, form: str, fact: Fact) -> str:
        """Return a form with its names filled in; ``{Core}`` begins with a capital."""
        core = self.core.format(entity=fact.entity)
        names = {"core": core, "entity": fact.entity, "answer": fact.answer}
        return form.format(**names, **{name.title(): _capital(names[name]) for name in names})

    def questions_about(self, fact: Fact) -> Iterator[str]:
        """Yield every way to ask for ``fact``."""
        return (self.fill(form, fact) for form in self.questions)


@cache
def family_table() -> FamilyTable:
    """Read and validate ``families.yaml``."""
    return FamilyTable.model_validate(yaml_text.read(Path(__file__).with_name("families.yaml")))


@cache
def families() -> dict[str, Family]:
    """Return all families by name, in the order of the table."""
    content = family_table()
    return {
        name: Family(
            name,
            row.role,
            row.core,
            row.facts.facts(),
            content.phrasings[row.phrasings].questions + row.questions,
            content.phrasings[row.phrasings].answers + row.answers,
        )
        for name, row in content.families.items()
    }


def refusal_forms() -> tuple[str, ...]:
    """Return the ways to decline an act, with ``{core}``."""
    return family_table().refusals


def how_to(kind: ActKind) -> Family:
    """Return the family of ways to do something, for acts of one kind."""
    return replace(families()["how_to"], facts=how_to_facts(kind))


def reserved(question: str) -> bool:
    """Whether a question is for evaluation only: half of all are, and the corpus holds none.

    The corpus does ask for the same facts, in the phrasings that are not reserved.
    """
    return hashlib.sha256(question.encode()).digest()[0] % 2 == 0


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
