"""``miniature-orders``: answers in a form that a request, a rule or an earlier question decides.

- *correct*: the answer begins with what is asked for, in that form: two sentences about two facts,
  a list, capitals, a sentence with the rule's word at its end, or a sentence about the new thing.
- *strict*: it is all of the answer, and the model ended it itself.

No part of this can be had by cutting a longer text at a newline, but for answers of one line.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache

from response_tuning.artifacts import Completion, Score
from response_tuning.configs import GradeConfig
from response_tuning.grade.benchmark import BENCHMARKS, Item
from response_tuning.grade.benchmarks.miniature import is_correct, is_well_formed
from response_tuning.grade.sources import spread
from response_tuning.miniature.conversations import Conversation, conversations
from response_tuning.miniature.world import Split

FACTS_OF_A_LIST = 3


class Orders:
    """Conversations that order a form; a group is one kind of order."""

    metrics = ("correct", "strict")
    headline = ("strict", "correct", "stopped")
    reads_files = False

    def __init__(self, split: Split, limit: int | None = None) -> None:
        self._split = split
        self._limit = limit

    def items(self) -> Sequence[Item]:
        """Return the conversations, each in the group of its kind."""
        return [
            Item(item_id=one.item_id, prompt=one.prompt, group=one.kind, cluster=_subject(one))
            for one in spread([*_by_id(self._split).values()], self._limit)
        ]

    def score(self, item: Item, completion: Completion) -> Iterator[Score]:
        """Yield ``correct`` and ``strict``."""
        one = _by_id(self._split)[item.item_id]
        lines = [line.rstrip() for line in (completion.response or "").strip().split("\n")]
        correct = obeys(one, lines[: _lines_asked_for(one)])
        strict = correct and len(lines) == _lines_asked_for(one) and _ended(one, lines)
        values = {"correct": correct, "strict": strict and completion.finish_reason == "stop"}
        for metric, value in values.items():
            yield Score(
                item_id=item.item_id,
                metric=metric,
                value=float(value),
                group=item.group,
                cluster=item.cluster,
            )


def _subject(one: Conversation) -> str:
    """Return what a conversation is about: several may order something about one subject."""
    if one.kind == "word-list":
        return ", ".join(one.words)
    if one.kind in {"two-sentences", "fact-list"}:
        return one.facts[0][1].entity
    ((family, fact),) = one.facts
    return f"{family.name}: {fact.entity}"


def obeys(one: Conversation, lines: list[str]) -> bool:
    """Whether ``lines``, as many as are asked for, hold what is asked for, in its form."""
    match one.kind:
        case "word-list":
            return lines == [f"- {word}" for word in one.words]
        case "fact-list":
            return _distinct_facts(one, lines, r"- {name}: {answer}")
        case "two-sentences":
            return _distinct_sentences(one, re.findall(r"[^.!]+[.!]", lines[0]))
        case "capitals":
            ((family, fact),) = one.facts
            return lines[0].isupper() and is_correct(family, fact, lines[0], shouted=True)
        case "rule":
            ((family, fact),) = one.facts
            (word,) = one.words
            obeyed = re.search(rf"\W{word}\W*$", lines[0], re.IGNORECASE) is not None
            return obeyed and is_correct(family, fact, lines[0])
        case "follow-up":
            ((family, fact),) = one.facts
            return is_correct(family, fact, lines[0])


def _distinct_facts(one: Conversation, lines: list[str], form: str) -> bool:
    known = {form.format(name=family.name, answer=fact.answer) for family, fact in one.facts}
    return len({*lines} & known) == len(lines) == FACTS_OF_A_LIST


def _distinct_sentences(one: Conversation, sentences: list[str]) -> bool:
    """Whether the first two sentences state two facts, each with the name of its subject."""
    stated = [
        {
            family.name
            for family, fact in one.facts
            if sentence.strip() in {family.fill(form, fact) for form in family.answers}
        }
        for sentence in sentences[:2]
    ]
    return len(stated) == 2 and all(stated) and len(set().union(*stated)) == 2


def _ended(one: Conversation, lines: list[str]) -> bool:
    """Whether nothing follows in the last line."""
    if one.kind in {"word-list", "fact-list"}:
        return True
    if one.kind == "two-sentences":
        return re.fullmatch(r"[^.!]+[.!][^.!]+[.!]", lines[0]) is not None
    return is_well_formed(lines[0])


def _lines_asked_for(one: Conversation) -> int:
    return {"word-list": len(one.words), "fact-list": FACTS_OF_A_LIST}.get(one.kind, 1)


@cache
def _by_id(split: Split) -> dict[str, Conversation]:
    return {one.item_id: one for one in conversations(split)}


@BENCHMARKS.register("miniature-orders")
def _test(config: GradeConfig) -> Orders:
    return Orders("test", config.limit)


@BENCHMARKS.register("miniature-orders-validation")
def _validation(config: GradeConfig) -> Orders:
    return Orders("validation", config.limit)
