"""Documents of the miniature's own kind, and a teacher that goes on with half of one.

The documents come from the generator of the base's corpus under a seed of their own. The teacher is
code: it stands in for an aligned model, whose continuations are tuned on.
"""

import random
import re
from collections.abc import Iterator
from functools import cache
from itertools import islice

from response_tuning.miniature.controls import MOST_FACTS
from response_tuning.miniature.corpus import documents
from response_tuning.miniature.families import Family, families
from response_tuning.miniature.world import Fact
from response_tuning.miniature.writer import Mixture, Registers

SEED = 2409
"""Seed of the documents; the corpus of the base has another."""
DOCUMENTS = 4000
WITHOUT_REQUESTS = {"reference", "ethics", "manual", "office"}
"""Registers in prose in which nobody asks for anything, as hardly anybody does on web pages."""


def document_rows() -> Iterator[dict[str, str]]:
    """Yield documents of every register, as the base has read them."""
    return _rows(Mixture())


def statement_rows() -> Iterator[dict[str, str]]:
    """Yield documents of the registers without requests, in the shares of the corpus."""
    shares = {name: share if name in WITHOUT_REQUESTS else 0 for name, share in Registers()}
    return _rows(Mixture(registers=Registers(**shares)))


def _rows(mixture: Mixture) -> Iterator[dict[str, str]]:
    return ({"text": text} for text in islice(documents(SEED, mixture), DOCUMENTS))


def continuation(half: str) -> str:
    """Return one sentence about the last thing in ``half`` that rows of tuning may be about.

    It states a fact of a seen family, in a form of an answer. A half without such a thing is
    continued with any such fact. The same half always has the same continuation.
    """
    draw = random.Random(half)
    known = _facts()
    named = [word for word in re.findall(r"\w+", half) if word in known]
    family, fact = draw.choice(known[named[-1] if named else draw.choice([*known])])
    return family.fill(draw.choice(family.answers), fact)


@cache
def _facts() -> dict[str, list[tuple[Family, Fact]]]:
    """Return the facts for tuning of seen families that are learnt by heart, by their entity."""
    known: dict[str, list[tuple[Family, Fact]]] = {}
    for family in families().values():
        if family.role == "seen" and len(family.facts) <= MOST_FACTS:
            for fact in family.facts:
                if fact.split == "tuning":
                    known.setdefault(fact.entity, []).append((family, fact))
    return known
