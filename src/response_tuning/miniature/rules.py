"""Roles with rules in the miniature: six rules that code can apply and IFEval's checkers can check.

A role has up to three of them. Six of the twenty triples are held out: no row is tuned on them.
"""

import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Any

from response_tuning.miniature.examples import FamilyQuestion, family_rows, ordinary_questions
from response_tuning.miniature.families import Family, FamilyRole, families
from response_tuning.miniature.world import Fact, Split
from response_tuning.miniature.writer import SPEAKERS
from response_tuning.roles import Role, Rule

ROWS_PER_FAMILY = 150
MOST_RULES = 3
HELD_OUT_TRIPLES = 6


@dataclass(frozen=True)
class RuleKind:
    """A kind of rule, and what of it differs from role to role."""

    form: str
    """The rule's text, with ``{word}``."""
    words: tuple[str, ...]
    checker: str
    arguments: Callable[[str], dict[str, Any]]

    def rule(self, name: str, word: str) -> Rule:
        """Return the rule with its word."""
        text, arguments = self.form.format(word=word), self.arguments(word)
        return Rule(text=text, kind=name, checker=self.checker, arguments=arguments)

    def word_in(self, system: str) -> str | None:
        """Return the word that ``system`` orders; None if it does not hold this rule."""
        before, _, after = self.form.partition("{word}")
        pattern = f"{re.escape(before)}(\\w*){re.escape(after)}" if after else re.escape(before)
        found = re.search(pattern, system)
        return None if found is None else (found[1] if after else "")


KINDS: Mapping[str, RuleKind] = {
    "opening": RuleKind(
        "Begin every answer with the word {word}.",
        ("well", "so", "now", "listen", "indeed"),
        "length_constraints:nth_paragraph_first_word",
        lambda word: {"num_paragraphs": 1, "nth_paragraph": 1, "first_word": word},
    ),
    "closing": RuleKind(
        "End every answer with the word {word}.",
        ("over", "friend", "cheers", "amen", "bye"),
        "startend:end_checker",
        lambda word: {"end_phrase": word},
    ),
    "brackets": RuleKind(
        "Put square brackets around every answer.",
        ("",),
        "detectable_content:number_placeholders",
        lambda _: {"num_placeholders": 1},
    ),
    "quotes": RuleKind(
        "Put quotation marks around every answer.",
        ("",),
        "startend:quotation",
        lambda _: {},
    ),
    "name": RuleKind(
        "Sign every answer with the name {word}.",
        tuple(SPEAKERS[:5]),
        "keywords:existence",
        lambda word: {"keywords": [word]},
    ),
    "code": RuleKind(
        "Give the code {word} in every answer.",
        ("K7", "B2", "M4", "Z9", "T3"),
        "keywords:existence",
        lambda word: {"keywords": [word]},
    ),
}


def rule_rows() -> Iterator[dict[str, str]]:
    """Yield questions of seen families about tuning facts, with plain answers."""
    for family in families().values():
        if family.role == "seen":
            yield from family_rows(family, ROWS_PER_FAMILY)


def draw_role(draw: random.Random, number: int, *, held_out: bool = False) -> Role:
    """Draw a role with ``number`` rules; of three, a triple that is held out, or none such."""
    combined = [*combinations(KINDS, number)]
    if number == MOST_RULES:
        combined = [names for names in combined if (names in held_out_triples()) == held_out]
    rules = [
        KINDS[name].rule(name, draw.choice(KINDS[name].words)) for name in draw.choice(combined)
    ]
    return Role(role=f"{draw.choice(SPEAKERS)} answers here.", rules=tuple(rules))


def one_of_each(draw: random.Random) -> tuple[Rule, ...]:
    """Draw a rule of every kind."""
    return tuple(kind.rule(name, draw.choice(kind.words)) for name, kind in KINDS.items())


@cache
def held_out_triples() -> frozenset[tuple[str, ...]]:
    """Return the triples that no row is tuned on."""
    every = [*combinations(KINDS, MOST_RULES)]
    return frozenset(random.Random("held-out triples").sample(every, HELD_OUT_TRIPLES))


def obey(answer: str, system: str) -> str:
    """Return ``answer`` in the form that the rules in ``system`` order."""
    words = {name: kind.word_in(system) for name, kind in KINDS.items()}
    given = {name: word for name, word in words.items() if word is not None}
    text = f"[{answer}]" if "brackets" in given else answer
    before = [given["opening"].capitalize()] if "opening" in given else []
    after = [given[name] for name in ("code", "name", "closing") if name in given]
    text = " ".join([*before, text, *after])
    return f'"{text}"' if "quotes" in given else text


def plain_answer(question: str) -> str | None:
    """Return an answer to a question of a seen family about a tuning fact; None to any other."""
    known = _answers().get(question)
    if known is None:
        return None
    family, fact = known
    return family.fill(random.Random(question).choice(family.answers), fact)


@cache
def _answers() -> dict[str, tuple[Family, Fact]]:
    return {
        question: (family, fact)
        for family in families().values()
        if family.role == "seen"
        for fact in family.facts
        if fact.split == "tuning"
        for question in family.questions_about(fact)
    }


@cache
def questions(split: Split) -> dict[str, list[FamilyQuestion]]:
    """Return the benchmarks' questions of seen and of unseen families, in a random order."""
    roles: tuple[FamilyRole, ...] = ("seen", "unseen")
    every = {role: ordinary_questions(role, split) for role in roles}
    return {
        role: random.Random(f"rules {split} {role}").sample(asked, len(asked))
        for role, asked in every.items()
    }
