"""Requests with what the person who made them wants: WildFeedback's checklist-guided comparison.

A judge compares each answer with a reference's in both orders and is shown the wishes (Shi et al.,
arXiv 2408.15549, section 4). ``rtune data feedback --rewrite`` writes such rows. The published test
set has 540 of them. Judge with another model than the one that wrote the wishes, and on users whose
conversations no model was tuned on.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from response_tuning.artifacts import Completion, Message, Request, Score, Total
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.grade.benchmark import BENCHMARKS, OFFLINE, Item
from response_tuning.grade.judges.pairwise import Pairwise, read_answers
from response_tuning.grade.sources import BenchmarkSource, SourceRows, cell, read_source, spread
from response_tuning.readers import Row, shown

NAME = "wishes"


@BENCHMARKS.register(NAME)
class Wishes:
    """The rows of the file that ``grade.paths.wishes`` names.

    Raises:
        ConfigError: there is a judge and no reference. This is known before a model answers.
    """

    metrics = Pairwise.metrics
    headline = ("length_controlled_win_rate", "win_rate")
    has_reference = True

    def __init__(self, config: GradeConfig) -> None:
        self._config = config
        if config.judge.engine != OFFLINE:
            _reference(config)

    @cached_property
    def _source(self) -> SourceRows:
        if NAME not in self._config.paths:
            raise ConfigError(
                f"{NAME}: name your file, with a request and its wishes in each row: --set "
                f"grade.paths.{NAME}=pairs.jsonl"
            )
        return read_source(BenchmarkSource(NAME, f"{NAME}.jsonl"), self._config)

    @property
    def origin(self) -> dict[str, Any]:
        """Path and digest of the file."""
        return self._source.origin

    @cached_property
    def _wishes(self) -> dict[str, tuple[str, ...]]:
        return {f"{NAME}-{n:04}": _wanted(row) for n, row in enumerate(self._source.rows)}

    @cached_property
    def _items(self) -> list[Item]:
        every = [
            Item(item_id=item_id, prompt=_prompt(row))
            for item_id, row in zip(self._wishes, self._source.rows, strict=True)
        ]
        return spread(every, self._config.limit)

    def items(self) -> Sequence[Item]:
        """Return the requests with the turns before them.

        Raises:
            ConfigError: no file is named.
            DataError: it cannot be read, or a row lacks a request or wishes.
        """
        return self._items

    @cached_property
    def _pairwise(self) -> Pairwise:
        reference = read_answers(_reference(self._config), self._items)
        return Pairwise(self._items, reference, wishes=self._wishes)

    def questions(self, item: Item, completion: Completion) -> Sequence[Request]:
        """Return the question in both orders, with the wishes.

        Raises:
            ConfigError: no reference is named.
            DataError: the reference lacks an item.
        """
        return self._pairwise.questions(item, completion)

    def judged(
        self, item: Item, completion: Completion, replies: Sequence[Completion]
    ) -> Iterator[Score]:
        """Yield the scores of ``Pairwise``."""
        return self._pairwise.judged(item, completion, replies)

    def totals(self, scores: Sequence[Score]) -> Iterator[Total]:
        """Yield ``length_controlled_win_rate``."""
        return self._pairwise.totals(scores)


def _reference(config: GradeConfig) -> Path:
    if config.reference is None:
        raise ConfigError(
            f"{NAME} compares answers with those of a reference: name a variant, or a file of "
            "answers (completions .jsonl), with --set grade.reference=NAME"
        )
    return Path(config.reference)


def _prompt(row: Row) -> tuple[Message, ...]:
    earlier = row.fields.get("earlier") or ()
    try:
        before = [Message.model_validate(message) for message in earlier]
    except (ValueError, TypeError) as error:
        raise DataError(f"{row.where}: 'earlier' is no list of messages") from error
    return (*before, Message(role="user", content=cell(row, "instruction", "prompt")))


def _wanted(row: Row) -> tuple[str, ...]:
    about = row.fields.get("metadata")
    given = row.fields.get(NAME, about.get(NAME) if isinstance(about, dict) else None)
    if not isinstance(given, list) or not given or not all(isinstance(w, str) for w in given):
        raise DataError(
            f"{row.where}: '{NAME}' is {shown(given)}, not a list of texts; remove the row"
        )
    return tuple(given)
