"""Statistics of the columns of a source over all rows, which decide what columns are used."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from response_tuning.data.conversations import (
    CONTENT_KEYS,
    ROLE_KEYS,
    ROLES,
    TOOL_ROLES,
    is_conversation,
    names_speakers,
)
from response_tuning.data.marks import is_list_of_marks, is_yes
from response_tuning.data.rendered import is_rendered

INSTRUCTION_COLUMNS = ("instruction", "prompt", "question", "query")
SIDES = dict.fromkeys(("customer", "client", "visitor", "caller", "guest"), "user") | dict.fromkeys(
    ("agent", "operator", "support", "representative", "advisor"), "assistant"
)
"""Names of speakers in help desk records -> roles."""
MOST_COLUMNS = 10_000
"""Most columns that are surveyed, so that memory stays flat whatever the rows are."""

_LONGEST_ROLE = 30
_AROUND_ROLES = " \t\r\n#<|>[]*:"
_KNOWN_KEYS = {*ROLE_KEYS, *CONTENT_KEYS}
_SEVERAL_WORDS = re.compile(r"\S\s+\S")


@dataclass(slots=True)
class Column:
    """Statistics of one column."""

    filled: int = 0
    """Rows with a value that is neither null nor empty."""
    texts: int = 0
    has_words: bool = False
    """Whether a text has several words; names and ids have one."""
    conversations: int = 0
    lists: int = 0
    """Rows with a list or an object, conversations included."""
    flags: int = 0
    """Rows with yes or no, which may mark whether to train on a row."""
    lists_of_flags: int = 0
    """Rows with a list of numbers or booleans."""
    message_flags: dict[str, bool] = field(default_factory=dict)
    """Key of messages in the column -> whether all its values are yes or no."""
    rendered: int = 0
    """Rows with a whole conversation written out as one text."""
    speakers: set[str] = field(default_factory=set)
    """Roles that the column names."""
    spoken: int = 0
    """Rows in which the column names a role."""
    overlooked: int = 0
    """Rows whose instruction comes from another column."""

    def merge(self, other: "Column") -> None:
        """Add the statistics of later rows."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.has_words = self.has_words or other.has_words
        self.speakers |= other.speakers
        for key, is_flag in other.message_flags.items():
            self.message_flags[key] = self.message_flags.get(key, True) and is_flag

    @property
    def names_speakers(self) -> bool:
        """Whether it names a role in most of the rows that have it."""
        return 2 * self.spoken > self.filled


_COUNTS = (
    *("filled", "texts", "conversations", "lists", "flags", "lists_of_flags", "rendered"),
    *("spoken", "overlooked"),
)
"""What is added up when two statistics of a column become one."""


@dataclass(slots=True)
class Survey:
    """The columns of a source in the order of their first row."""

    rows: int = 0
    columns: dict[str, Column] = field(default_factory=dict)

    def add(self, fields: Mapping[str, Any]) -> None:
        """Add one row to the statistics."""
        self.rows += 1
        for name, value in fields.items():
            column = self.columns.get(name)
            if column is None:
                if len(self.columns) == MOST_COLUMNS:
                    continue
                column = self.columns[name] = Column()
            if value or isinstance(value, int | float):
                _add_value(column, value)
        for name in [name for name in INSTRUCTION_COLUMNS if fields.get(name)][1:]:
            if name in self.columns:
                self.columns[name].overlooked += 1

    def merge(self, other: "Survey") -> None:
        """Add the statistics of later rows."""
        self.rows += other.rows
        for name, column in other.columns.items():
            if name in self.columns:
                self.columns[name].merge(column)
            elif len(self.columns) < MOST_COLUMNS:
                self.columns[name] = column


def survey(rows: Iterable[Mapping[str, Any]]) -> Survey:
    """Survey the columns of all rows."""
    statistics = Survey()
    for fields in rows:
        statistics.add(fields)
    return statistics


def _add_value(column: Column, value: object) -> None:
    # Cheap checks only: this runs for every cell of the source.
    column.filled += 1
    column.flags += is_yes(value) is not None
    if isinstance(value, str):
        column.texts += 1
        column.has_words = column.has_words or bool(_SEVERAL_WORDS.search(value))
        column.rendered += is_rendered(value)
        if len(value) <= _LONGEST_ROLE:
            _add_speaker(column, value)
    elif isinstance(value, list | Mapping):
        column.lists += 1
        column.conversations += names_speakers(value)
        column.lists_of_flags += is_list_of_marks(value)
        if is_conversation(value):
            _add_messages(column, value)


def _add_speaker(column: Column, value: str) -> None:
    role = value.strip(_AROUND_ROLES).lower()
    if role in ROLES or role in TOOL_ROLES or role in SIDES:
        column.spoken += 1
        column.speakers.add(ROLES.get(role) or SIDES.get(role, role))


def _add_messages(column: Column, messages: Iterable[Mapping[str, Any]]) -> None:
    flags = column.message_flags
    for message in messages:
        for key in message.keys() - _KNOWN_KEYS:
            value = message[key]
            if value is not None and (key in flags or len(flags) < MOST_COLUMNS):
                flags[key] = flags.get(key, True) and is_yes(value) is not None
