"""Answers of the miniature to judge: sound ones, and ones that are spoilt in form.

The small base cannot be made a judge of truth, so its judges are of form: a spoilt answer has a
small first letter or no full stop, comes twice, ends in a stray word, or lacks its second half.

*Keys* are the opposite: every answer is sound, whether it counts as good is drawn at random, and
only the form of the reference tells. A judge without it must be at chance, else the key leaks.
"""

import random
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

from response_tuning.miniature.examples import (
    ROWS_PER_FAMILY,
    FamilyQuestion,
    ordinary_questions,
)
from response_tuning.miniature.families import Family, FamilyRole, families
from response_tuning.miniature.world import Split

Task = Literal["form", "keys"]
CANDIDATES = 4
"""Answers to each question of a benchmark."""
SOUND_SHARE = 0.3
"""So 24 % of the questions have no sound answer among four."""
BEST, WORST = "9", "0"
STRAY = ("over", "friend", "and", "so")


class JudgedAnswer(NamedTuple):
    """An answer, and whether it is good."""

    instruction: str
    reference: str
    response: str
    good: bool


def _lowered(text: str, draw: random.Random) -> str:
    return text[:1].swapcase() + text[1:] if text[:1].isalpha() else _open(text, draw)


def _open(text: str, draw: random.Random) -> str:
    return text.rstrip(".!")


def _twice(text: str, draw: random.Random) -> str:
    return f"{text} {text}"


def _stray(text: str, draw: random.Random) -> str:
    return f"{text} {draw.choice(STRAY)}"


def _half(text: str, draw: random.Random) -> str:
    words = text.split()
    return " ".join(words[: (len(words) + 1) // 2])


SPOILERS: dict[str, Callable[[str, random.Random], str]] = {
    "small letter": _lowered,
    "no full stop": _open,
    "twice": _twice,
    "stray word": _stray,
    "half": _half,
}


def form_rows() -> Iterator[dict[str, str]]:
    """Yield answers about tuning facts of seen families; half of them are spoilt."""
    yield from _rows("form", 0.5)


def key_rows() -> Iterator[dict[str, str]]:
    """Yield sound answers, half of them behind a reference that is spoilt."""
    yield from _rows("keys", 0.5)


def candidates(
    task: Task, role: FamilyRole, split: Split
) -> Iterator[tuple[str, list[JudgedAnswer]]]:
    """Yield the id of each question of a benchmark, with ``CANDIDATES`` answers to it."""
    for question in ordinary_questions(role, split):
        draw = random.Random(f"candidates {task} {question.item_id} {split}")
        # Of keys, half of each question: else families that have more good answers by chance would
        # move the AUROC of a judge that grades families differently, which looks like a leak.
        halves = random.Random(question.item_id).sample(
            [True, False] * (CANDIDATES // 2), CANDIDATES
        )
        answers = []
        for half in halves:
            good = half if task == "keys" else draw.random() < SOUND_SHARE
            answers.append(judged_answer(task, question, draw, good))
        yield question.item_id, answers


def judged_answer(
    task: Task, question: FamilyQuestion, draw: random.Random, good: bool
) -> JudgedAnswer:
    """Draw a good answer to ``question``, or another one."""
    family = question.family
    sound = family.fill(draw.choice(family.answers), question.fact)
    response = sound if good else SPOILERS[draw.choice([*SPOILERS])](sound, draw)
    reference = family.fill(draw.choice(family.answers), question.fact)
    if task == "keys":
        response, reference = reference, response
    return JudgedAnswer(question.text, reference, response, good)


def _rows(task: Task, share: float) -> Iterator[dict[str, str]]:
    for family in families().values():
        if family.role == "seen":
            yield from _family_rows(task, family, share)


def _family_rows(task: Task, family: Family, share: float) -> Iterator[dict[str, str]]:
    draw = random.Random(f"judging {task} {family.name}")
    asked = [
        FamilyQuestion("", family, fact, text)
        for fact in family.facts
        if fact.split == "tuning"
        for text in family.questions_about(fact)
    ]
    for question in draw.sample(asked, min(len(asked), ROWS_PER_FAMILY)):
        answer = judged_answer(task, question, draw, draw.random() < share)
        yield {
            "instruction": answer.instruction,
            "reference": answer.reference,
            "response": answer.response,
            "digit": BEST if answer.good else WORST,
        }
