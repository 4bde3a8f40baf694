"""``prompts``: a file of the user's own prompts, whose answers are measured and shown side by side.

The report has the measures of any answer, such as the share that the model ended itself, and the
answers of all variants to each prompt. A row with ``expected`` words is scored, too: the answer is
*correct* if it contains one of them, and *strict* if it also ended by itself.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from response_tuning.artifacts import Completion, Message, Score
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.grade.benchmark import BENCHMARKS, Item
from response_tuning.grade.sources import BenchmarkSource, SourceRows, cell, read_source, spread
from response_tuning.readers import Row, shown

NAME = "prompts"
COLUMNS = ("prompt", "instruction", "question")
EXPECTED = "expected"


class Question(Item):
    """A prompt of the user's."""

    expected: tuple[str, ...] = ()
    """Any of these makes an answer correct; empty: nobody says what is correct."""


@BENCHMARKS.register(NAME)
class Prompts:
    """Prompts of one user turn each, from the file that ``grade.paths.prompts`` names."""

    headline: tuple[str, ...] = ("strict", "correct", "stopped")
    metrics: tuple[str, ...] = ("strict", "correct", "stopped")

    def __init__(self, config: GradeConfig) -> None:
        self._config = config

    @cached_property
    def _rows(self) -> SourceRows:
        if NAME not in self._config.paths:
            raise ConfigError(
                "prompts: name your file, with one prompt in each row: --set "
                "grade.paths.prompts=prompts.jsonl"
            )
        return read_source(BenchmarkSource(NAME, f"{NAME}.jsonl", column=COLUMNS[0]), self._config)

    @cached_property
    def _items(self) -> list[Question]:
        items: dict[str, Question] = {}
        for number, row in enumerate(self._rows.rows):
            item_id, prompt = str(row.fields.get("id", number)), cell(row, *COLUMNS)
            if item_id in items:
                raise DataError(f"{row.where}: id '{item_id}' is not unique; change it")
            if not prompt.strip():
                raise DataError(f"{row.where}: empty prompt; remove the row")
            items[item_id] = Question(
                item_id=item_id,
                prompt=(Message(role="user", content=prompt),),
                expected=_expected(row),
            )
        return [*items.values()]

    @property
    def origin(self) -> dict[str, Any]:
        """Path and digest of the file."""
        return self._rows.origin

    def items(self) -> Sequence[Item]:
        """Return the prompts; a row's ``id``, or else its number from 0, is the item's.

        Raises:
            ConfigError: no file is named.
            DataError: it cannot be read, lacks a prompt, has an id twice, or expects no text.
        """
        return spread(self._items, self._config.limit)

    def score(self, item: Item, completion: Completion) -> Iterator[Score]:
        """Yield *correct* and *strict* where the row has expected words."""
        assert isinstance(item, Question)
        if item.expected:
            text = completion.response or ""
            correct = any(contains(text, words) for words in item.expected)
            strict = correct and completion.finish_reason == "stop"
            yield Score(item_id=item.item_id, metric="correct", value=float(correct))
            yield Score(item_id=item.item_id, metric="strict", value=float(strict))


def contains(text: str, words: str) -> bool:
    """Whether ``text`` contains ``words`` as whole words, in any case and with any white space.

    A word ends at a letter or digit only in scripts with capitals, and numbers: others may be
    written without spaces, or with endings.
    """
    inner = r"\s+".join(map(re.escape, words.casefold().split()))
    before = r"(?<!\w)" if _is_bounded(words[0]) else ""
    behind = r"(?!\w)" if _is_bounded(words[-1]) else ""
    return re.search(f"{before}{inner}{behind}", text.casefold()) is not None


def _is_bounded(character: str) -> bool:
    return character.isdigit() or character.lower() != character.upper()


def _expected(row: Row) -> tuple[str, ...]:
    """Return the expected words of a row: a text, or a list of texts."""
    value = row.fields.get(EXPECTED)
    if value in (None, ""):  # in a table, a row without expected words has an empty cell
        return ()
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(
            f"{row.where}: expected a text, or a list of texts, in '{EXPECTED}', found "
            f"{shown(value)}"
        )
    return tuple(text.strip() for text in texts)
