"""Ratings by people: which answers each rater sees, in which order, and how they rate them.

A *study* is a folder. ``study.json`` says whose answers are rated, ``asked.jsonl`` holds them, so
that you can give the folder to a rater as it is, and ``ratings/<rater>.jsonl`` is the journal of
one rater, in which a later rating of a task supersedes an earlier one. A *task* is one prompt with
the answers of one or two variants, whose names the page hides from the rater.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeAlias

from pydantic import ValidationError, model_validator

from response_tuning.artifacts import (
    Completion,
    Message,
    Record,
    digest,
    file_digest,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)
from response_tuning.errors import ConfigError, DataError
from response_tuning.grade.benchmark import Item
from response_tuning.grade.judges.levels import Level
from response_tuning.grade.judges.pairwise import read_answers
from response_tuning.grade.sources import spread
from response_tuning.journals import Journal
from response_tuning.registry import unknown

Side: TypeAlias = Literal["left", "right", "tie"]

STUDY_FILE, ITEMS_FILE, RATINGS_FOLDER = "study.json", "asked.jsonl", "ratings"


class Study(Record):
    """What all raters of a folder are shown."""

    answers: dict[str, str]
    """Variant -> SHA-256 of the file of its completions."""
    reference: str
    """The variant that every other variant is compared with."""
    seed: int
    """Seed of the order of tasks and sides, together with the rater's name."""
    limit: int | None
    """Number of prompts, evenly spread over those of the files; None: all."""


class StudyItem(Record):
    """A prompt, and what each variant answered to it."""

    item_id: str
    prompt: tuple[Message, ...]
    answers: dict[str, str]


class TaskRating(Record):
    """How a rater rates a task; levels are in the order of the answers on the page."""

    levels: tuple[Level, ...]
    more_helpful: Side | None = None
    """None where there is only one answer."""
    comment: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (len(self.levels), self.more_helpful is None) not in {(1, True), (2, False)}:
            raise ValueError("a level for each answer, and which of two is more helpful")
        return self


class RatingRecord(Record):
    """One line of a journal."""

    rater: str
    item_id: str
    variants: tuple[str, ...]
    """In the order on the page, from left to right."""
    verdict: TaskRating


@dataclass(frozen=True)
class RatingTask:
    """What a rater sees on one page."""

    item: StudyItem
    variants: tuple[str, ...]
    """From left to right; hidden from the rater."""

    @property
    def answers(self) -> tuple[str, ...]:
        """The answers from left to right."""
        return tuple(self.item.answers[variant] for variant in self.variants)

    @property
    def digest(self) -> str:
        """An identity of the task that does not reveal the variants."""
        prompt = (message.model_dump_json() for message in self.item.prompt)
        return digest(self.item.item_id, *prompt, *self.answers)


def make_study(
    folder: Path,
    answers: Mapping[str, Path],
    reference: str | None = None,
    seed: int = 0,
    limit: int | None = None,
) -> None:
    """Lay out a study of variant -> file of its answers, unless ``folder`` holds this very study.

    The prompts are those of the reference, or ``limit`` of them. Each other variant is shown beside
    ``reference``, which by default is the first.

    Raises:
        ConfigError: ``folder`` holds another study, or a variant has an impossible name.
        DataError: a file cannot be read, or lacks an answer to a prompt of the reference.
    """
    for name in answers:
        _check_name("variant", name)
    reference = reference or next(iter(answers))
    if reference not in answers:
        raise unknown("reference", reference, [*answers])
    completions = read_jsonl(answers[reference], Completion)
    items = spread([Item(item_id=one.item_id, prompt=one.prompt) for one in completions], limit)
    if not items:
        raise DataError(f"{answers[reference]}: the file has no answers")
    # Without thoughts and marks, which would give a variant away.
    texts = {name: read_answers(path, items) for name, path in answers.items()}
    study = Study(
        answers={name: file_digest(path) for name, path in answers.items()},
        reference=reference,
        seed=seed,
        limit=limit,
    )
    if (folder / STUDY_FILE).exists():
        if read_study(folder) != study:
            raise ConfigError(f"{folder} holds a study of other answers; choose another folder")
        return
    write_jsonl(folder / ITEMS_FILE, (_study_item(item, texts) for item in items))
    write_json(folder / STUDY_FILE, study.model_dump())


def read_study(folder: Path) -> Study:
    """Read what ``make_study`` wrote.

    Raises:
        DataError: there is no study in ``folder``, or it is damaged.
    """
    path = folder / STUDY_FILE
    try:
        study = Study.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(f"{path}: not a study: {key}: {first['msg']}") from error
    try:  # they become names of folders, and the file may be anybody's
        for name in study.answers:
            _check_name("variant", name)
        if study.reference not in study.answers:
            raise unknown("reference", study.reference, [*study.answers])
    except ConfigError as error:
        raise DataError(f"{path}: {error}") from error
    return study


def read_tasks(folder: Path, rater: str) -> list[RatingTask]:
    """Return the tasks of a rater, in that rater's own order.

    Raises:
        DataError: there is no study in ``folder``, or it is damaged.
    """
    study = read_study(folder)
    others = [name for name in study.answers if name != study.reference]
    shown: list[tuple[str, ...]] = [(study.reference, other) for other in others]
    shown = shown or [(study.reference,)]
    items = list(read_jsonl(folder / ITEMS_FILE, StudyItem))
    for number, one in enumerate(items, start=1):
        if missing := study.answers.keys() - one.answers.keys():
            raise DataError(f"{folder / ITEMS_FILE}:{number}: has no answer of '{min(missing)}'")
    tasks = [(one, variants) for one in items for variants in shown]
    # Seeded by the rater's name, so that a session continues in the order in which it began.
    rng = random.Random(digest(str(study.seed), rater))
    rng.shuffle(tasks)
    return [RatingTask(one, tuple(rng.sample(variants, len(variants)))) for one, variants in tasks]


def raters(folder: Path) -> list[str]:
    """Return the names of all who have a journal."""
    return sorted(path.stem for path in (folder / RATINGS_FOLDER).glob("*.jsonl"))


class Session:
    """One rater's session in a study; it continues where the rater stopped."""

    def __init__(self, folder: Path, rater: str) -> None:
        """Read the tasks and the rater's ratings so far.

        Raises:
            ConfigError: the rater's name cannot be the name of a file.
            DataError: the study or the journal is damaged.
        """
        journal = journal_of(folder, rater)
        self.rater = rater
        self.tasks = read_tasks(folder, rater)
        self._folder = folder
        self.verdicts: dict[int, TaskRating] = {}
        """Position of a task -> its latest rating."""
        # By content, not by position: the journal of a rater stays valid if the order ever changes.
        place = {(task.item.item_id, task.variants): at for at, task in enumerate(self.tasks)}
        for rating in Journal(journal, RatingRecord):
            at = place.get((rating.item_id, rating.variants))
            if at is None or rating.rater != rater:
                raise DataError(
                    f"{journal}: the rating of item {rating.item_id} by {rating.rater} is none of "
                    f"{rater}'s in this study; move the file away"
                )
            self.verdicts[at] = rating.verdict

    def rate(self, position: int, verdict: TaskRating) -> None:
        """Save the rating of a task: it is on disk when this returns.

        Raises:
            ValueError: the verdict is on more answers than there are, or on fewer.
        """
        task = self.tasks[position]
        if len(verdict.levels) != len(task.variants):
            raise ValueError(f"{len(verdict.levels)} levels for {len(task.variants)} answers")
        rating = RatingRecord(
            rater=self.rater,
            item_id=task.item.item_id,
            variants=task.variants,
            verdict=verdict,
        )
        # Opened for each: a full disk may have cut the last line off.
        journal = Journal(journal_of(self._folder, self.rater), RatingRecord)
        with journal.appending(each_synced=True) as append:
            append(rating)
        self.verdicts[position] = verdict

    def unrated(self, after: int = -1) -> int | None:
        """Return the next position without a rating; after the last task, search from the first."""
        later = [*range(after + 1, len(self.tasks)), *range(after + 1)]
        return next((at for at in later if at not in self.verdicts), None)


def _study_item(item: Item, texts: Mapping[str, Mapping[str, str | None]]) -> StudyItem:
    by_variant = {name: answers[item.item_id] or "" for name, answers in texts.items()}
    return StudyItem(item_id=item.item_id, prompt=item.prompt, answers=by_variant)


def _check_name(kind: str, name: str) -> None:
    if not re.fullmatch(r"\w[\w.-]{0,60}", name):
        raise ConfigError(
            f"{kind} '{name}': a name is letters, digits, '-', '_' and '.', and begins with a "
            "letter or digit"
        )


def journal_of(folder: Path, rater: str) -> Path:
    """Return the journal of a rater.

    Raises:
        ConfigError: the name cannot be a file name.
    """
    _check_name("rater", rater)
    return folder / RATINGS_FOLDER / f"{rater}.jsonl"
