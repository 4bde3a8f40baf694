"""Facts that are not two columns of a table: arithmetic, lists of words, and derived tables.

Facts about the same number, pair of numbers or list share a split: whatever one family holds out,
all hold out.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import product
from operator import add, sub

from response_tuning.miniature.world import (
    ActKind,
    Fact,
    Split,
    acts,
    split_by_row,
    splits_of,
    table,
    tables,
)

LISTS = 4000
_ONES = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty".split()
NUMBER_WORDS = (*_ONES, *(f"{t}{o}" for t in _TENS for o in ("", *(f"-{x}" for x in _ONES[:9]))))
"""``NUMBER_WORDS[n - 1]`` is n in words, 1 to 59."""
_UP_TO_12, _UP_TO_59 = range(1, 13), range(1, 60)
_UNEQUAL = [(a, b) for a, b in product(_UP_TO_59, _UP_TO_59) if a != b]
_SUMMANDS = list(product(_UP_TO_12, _UP_TO_12))
_FALLING = [(a, b) for a, b in _SUMMANDS if a > b]


def opposites() -> tuple[Fact, ...]:
    """Return every word with its opposite, both ways."""
    forward = table("opposites", "word", "opposite")
    return forward + _swapped(forward)


def categories() -> tuple[Fact, ...]:
    """Return every thing with its category."""
    pairs = (
        (thing, kind) for kind, things in tables()["categories"].items() for thing in things.split()
    )
    return split_by_row("category", pairs)


def words_in_capitals() -> tuple[Fact, ...]:
    """Return every word for lists in capitals."""
    return split_by_row("capitals", [(word, word.upper()) for word in tables()["words"].split()])


def how_to_facts(*kinds: ActKind) -> tuple[Fact, ...]:
    """Return the tools of all acts of these kinds."""
    return tuple(Fact(act.words, act.tool, act.split) for act in acts() if act.kind in kinds)


def number_words() -> tuple[Fact, ...]:
    """Return the numbers from 1 to 59 with their names."""
    pairs = [(str(n), word) for n, word in enumerate(NUMBER_WORDS, start=1)]
    return _with_splits(pairs, _number_splits())


@cache
def word_lists(count: int) -> tuple[tuple[str, ...], ...]:
    """Return ``count`` distinct lists of two to five words."""
    draw = random.Random("lists")
    words = tables()["words"].split()
    distinct: dict[tuple[str, ...], None] = {}  # as a set that keeps the order of the draws
    while len(distinct) < count:
        distinct[tuple(draw.sample(words, draw.randint(2, 5)))] = None
    return tuple(distinct)


def _swapped(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    return tuple(Fact(fact.answer, fact.entity, fact.split) for fact in facts)


def _next_numbers(numbers: Iterable[int], step: int) -> tuple[Fact, ...]:
    return _with_splits([(str(n), str(n + step)) for n in numbers], _number_splits())


def _results(
    pairs: Iterable[tuple[int, int]], result: Callable[[int, int], int]
) -> tuple[Fact, ...]:
    facts = [(_pair(a, b), str(result(a, b))) for a, b in pairs]
    return _with_splits(facts, _pair_splits())


def _of_lists(answer: Callable[[Sequence[str]], str]) -> tuple[Fact, ...]:
    facts = [(", ".join(words), answer(words)) for words in word_lists(LISTS)]
    return split_by_row("list", facts)


def _with_splits(pairs: Iterable[tuple[str, str]], splits: dict[str, Split]) -> tuple[Fact, ...]:
    return tuple(Fact(entity, answer, splits[entity]) for entity, answer in pairs)


def _number_splits() -> dict[str, Split]:
    return splits_of("number", [str(n) for n in range(1, 100)])


def _pair_splits() -> dict[str, Split]:
    return splits_of("pair", [_pair(a, b) for a, b in product(_UP_TO_59, _UP_TO_59)])


def _pair(a: int, b: int) -> str:
    return f"{a} and {b}"


COMPUTED_FACTS: dict[str, Callable[[], tuple[Fact, ...]]] = {
    "opposites": opposites,
    "categories": categories,
    "harmless_acts": lambda: how_to_facts("plain", "look-alike"),
    "larger": lambda: _results(_UNEQUAL, max),
    "smaller": lambda: _results(_UNEQUAL, min),
    "sum": lambda: _results(_SUMMANDS, add),
    "difference": lambda: _results(_FALLING, sub),
    "after": lambda: _next_numbers(range(1, 99), 1),
    "before": lambda: _next_numbers(range(2, 100), -1),
    "in_words": number_words,
    "in_digits": lambda: _swapped(number_words()),
    "last": lambda: _of_lists(lambda words: words[-1]),
    "first": lambda: _of_lists(lambda words: words[0]),
    "count": lambda: _of_lists(lambda words: NUMBER_WORDS[len(words) - 1]),
    "capitals": words_in_capitals,
}
"""Name in ``families.yaml`` -> what computes the facts."""
