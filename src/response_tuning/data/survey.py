"""What is in the columns of a source, over all of its rows: which are used depends on that."""

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

INSTRUCTIONS = ("instruction", "prompt", "question", "query")
SIDES = dict.fromkeys(("customer", "client", "visitor", "caller", "guest"), "user") | dict.fromkeys(
    ("agent", "operator", "support", "representative", "advisor"), "assistant"
)
"""Names of speakers in the records of a help desk -> roles."""
MOST_COLUMNS = 10_000
"""Different columns that are looked at, so that memory stays flat whatever the rows are."""


_LONGEST_ROLE = 30
_AROUND_ROLES = " \t\r\n#<|>[]*:"
_KNOWN_KEYS = {*ROLE_KEYS, *CONTENT_KEYS}
_WORDS = re.compile(r"\S\s+\S")


@dataclass(slots=True)
class Column:
    """What one column holds."""

    filled: int = 0
    """Rows with anything in it: not null, not empty."""
    texts: int = 0
    has_words: bool = False
    """Whether a text has several words, as what people say has and a name or an id has not."""
    conversations: int = 0
    lists: int = 0
    """Rows with a list or an object, conversations included."""
    flags: int = 0
    """Rows with yes or no in it, which can say whether a row is to be learned."""
    lists_of_flags: int = 0
    """Rows with a list of numbers or booleans."""
    message_flags: dict[str, bool] = field(default_factory=dict)
    """Keys of the messages in it -> whether there is nothing but yes or no under the key."""
    rendered: int = 0
    """Rows with a whole conversation written out as one text."""
    speakers: set[str] = field(default_factory=set)
    """Roles that it names."""
    spoken: int = 0
    """Rows in which it names one."""
    overlooked: int = 0
    """Rows in which another instruction comes first."""

    @property
    def names_speakers(self) -> bool:
        """Whether it says who speaks, in most of the rows that have it."""
        return 2 * self.spoken > self.filled


@dataclass(slots=True)
class Survey:
    """The columns of a source in the order in which they come up."""

    rows: int = 0
    columns: dict[str, Column] = field(default_factory=dict)

    def add(self, fields: Mapping[str, Any]) -> None:
        """Look at one more row."""
        self.rows += 1
        for name, value in fields.items():
            column = self.columns.get(name)
            if column is None:
                if len(self.columns) == MOST_COLUMNS:
                    continue
                column = self.columns[name] = Column()
            if value or isinstance(value, int | float):
                _look(column, value)
        for name in [name for name in INSTRUCTIONS if fields.get(name)][1:]:
            if name in self.columns:
                self.columns[name].overlooked += 1


def survey(rows: Iterable[Mapping[str, Any]]) -> Survey:
    """Look at the columns of all rows."""
    found = Survey()
    for fields in rows:
        found.add(fields)
    return found


def _look(column: Column, value: object) -> None:
    column.filled += 1
    column.flags += is_yes(value) is not None
    if isinstance(value, str):
        column.texts += 1
        column.has_words = column.has_words or bool(_WORDS.search(value))
        column.rendered += is_rendered(value)
        if len(value) <= _LONGEST_ROLE:
            _look_for_speaker(column, value)
    elif isinstance(value, list | Mapping):
        column.lists += 1
        column.conversations += names_speakers(value)
        column.lists_of_flags += is_list_of_marks(value)
        if is_conversation(value):
            _look_into_messages(column, value)


def _look_for_speaker(column: Column, value: str) -> None:
    role = value.strip(_AROUND_ROLES).lower()
    if role in ROLES or role in TOOL_ROLES or role in SIDES:
        column.spoken += 1
        column.speakers.add(ROLES.get(role) or SIDES.get(role, role))


def _look_into_messages(column: Column, messages: Iterable[Mapping[str, Any]]) -> None:
    flags = column.message_flags
    for message in messages:
        for key in message.keys() - _KNOWN_KEYS:
            value = message[key]
            if value is not None and (key in flags or len(flags) < MOST_COLUMNS):
                flags[key] = flags.get(key, True) and is_yes(value) is not None
