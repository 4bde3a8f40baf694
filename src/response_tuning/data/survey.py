"""What is in the columns of a source, over all of its rows: which are used depends on that."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from response_tuning.data.conversations import ROLE_KEYS, ROLES, TOOL_ROLES, names_speakers
from response_tuning.data.marks import MARKS, is_yes

INSTRUCTIONS = ("instruction", "prompt", "question", "query")
SIDES = dict.fromkeys(("customer", "client", "visitor", "caller", "guest"), "user") | dict.fromkeys(
    ("agent", "operator", "support", "representative", "advisor"), "assistant"
)
"""Names of speakers in the records of a help desk -> roles."""
MOST_COLUMNS = 10_000
"""Different columns that are looked at, so that memory stays flat whatever the rows are."""


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
    is_mark: bool = True
    """Whether all that it holds can say whether a row is to be learned."""
    speakers: set[str] = field(default_factory=set)
    """Roles that it names, if it names one in every row."""
    names_speakers: bool = True
    overlooked: int = 0
    """Rows in which another instruction comes first."""


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
                _look(column, name, value)
        for name in [name for name in INSTRUCTIONS if fields.get(name)][1:]:
            if name in self.columns:
                self.columns[name].overlooked += 1


def survey(rows: Iterable[Mapping[str, Any]]) -> Survey:
    """Look at the columns of all rows."""
    found = Survey()
    for fields in rows:
        found.add(fields)
    return found


def _look(column: Column, name: str, value: object) -> None:
    column.filled += 1
    if isinstance(value, str):
        column.texts += 1
        column.has_words = column.has_words or bool(_WORDS.search(value))
    elif isinstance(value, list | Mapping):
        column.lists += 1
        column.conversations += names_speakers(value)
    if name in MARKS and column.is_mark:
        column.is_mark = is_yes(value) is not None
    if name in ROLE_KEYS and column.names_speakers:
        _look_for_speaker(column, value)


def _look_for_speaker(column: Column, value: object) -> None:
    role = value.strip().lower() if isinstance(value, str) else ""
    column.names_speakers = role in ROLES or role in TOOL_ROLES or role in SIDES
    column.speakers.add(ROLES.get(role) or SIDES.get(role, role))
