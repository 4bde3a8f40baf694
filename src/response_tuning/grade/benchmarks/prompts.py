"""``prompts``: a file of the user's own prompts, whose answers are measured and shown side by side.

Nothing scores the answers: the report has the measures of any answer, such as the share that the
model ended itself, and the answers of all variants to each prompt.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from response_tuning.artifacts import Completion, Message, Score
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.grade.benchmark import BENCHMARKS, Item
from response_tuning.grade.sources import BenchmarkSource, SourceRows, cell, read_source, spread

NAME = "prompts"
COLUMNS = ("prompt", "instruction", "question")


@BENCHMARKS.register(NAME)
class Prompts:
    """Prompts of one user turn each, from the file that ``grade.paths.prompts`` names."""

    headline = ("stopped",)
    metrics = ("stopped",)

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
    def _items(self) -> list[Item]:
        items: dict[str, Item] = {}
        for number, row in enumerate(self._rows.rows):
            item_id, prompt = str(row.fields.get("id", number)), cell(row, *COLUMNS)
            if item_id in items:
                raise DataError(f"{row.where}: id '{item_id}' is not unique; change it")
            if not prompt.strip():
                raise DataError(f"{row.where}: empty prompt; remove the row")
            items[item_id] = Item(item_id=item_id, prompt=(Message(role="user", content=prompt),))
        return [*items.values()]

    @property
    def origin(self) -> dict[str, Any]:
        """Path and digest of the file."""
        return self._rows.origin

    def items(self) -> Sequence[Item]:
        """Return the prompts; a row's ``id``, or else its number from 0, is the item's.

        Raises:
            ConfigError: no file is named.
            DataError: it cannot be read, lacks a prompt, or has an id twice.
        """
        return spread(self._items, self._config.limit)

    def score(self, item: Item, completion: Completion) -> Iterator[Score]:
        """Yield nothing: ``stopped`` is measured for the answers of every benchmark."""
        yield from ()
