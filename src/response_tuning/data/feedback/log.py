"""Logs of conversations, as rows of utterances or of whole conversations.

WildFeedback's ``sat_dsat_annotation.json`` has a row for each utterance: ``UtteranceId`` counts
from 0 in each conversation, and ``SAT`` and ``DSAT`` are labels. A log without labels has a
conversation in each row, in any of the usual formats.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

from response_tuning.data.columns import CONVERSATION_COLUMNS
from response_tuning.data.conversations import ROLES, UnusableRow, messages
from response_tuning.errors import DataError
from response_tuning.readers import Row, shown

_NO = {"", "0", "n", "no", "none", "null", "n/a", "na", "nan", "false", "[]", "{}"}
_TOPIC = "prec"
"""How the name of the column begins that says whether a turn goes on with the topic; the published
file spells it "Preceeding ..."."""
_NEW_TOPIC = re.compile(r"(?:new|change|different|unrelated)\b.*|newtopic", re.IGNORECASE)


class Utterance(NamedTuple):
    """One turn of a conversation, with what its row says about it."""

    role: str
    """``system``, ``user`` or ``assistant``."""
    content: str
    satisfied: bool | None = None
    """Whether the row is labelled SAT; None in a log without labels."""
    dissatisfied: bool | None = None
    opens_topic: bool = False


class Dialogue(NamedTuple):
    """A whole conversation, or why it cannot be used."""

    number: int
    where: str
    """Where it begins: file and line, or record number."""
    utterances: tuple[Utterance, ...]
    fault: str = ""


def dialogues(rows: Iterable[Row], name: str) -> Iterator[Dialogue]:
    """Yield the conversations of a log called ``name``, unusable ones included.

    Raises:
        DataError: the rows are neither utterances nor conversations.
    """
    rows = iter(rows)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{name}: it has no rows")
    every = chain([first], rows)
    column = next(
        (key for key in (*CONVERSATION_COLUMNS, "conversation") if key in first.fields), None
    )
    if column is not None:
        yield from _whole(every, column)
    elif {"role", "content", "utteranceid"} <= {_plain(key) for key in first.fields}:
        yield from _assembled(every, name)
    else:
        raise DataError(
            f"{name}: neither conversations nor utterances: expected a column 'messages', or the "
            f"columns Role, Content and UtteranceId; found {', '.join(map(shown, first.fields))}"
        )


def _whole(rows: Iterable[Row], column: str) -> Iterator[Dialogue]:
    for number, row in enumerate(rows):
        if row.fault:
            yield Dialogue(number, row.where, (), row.fault)
            continue
        try:
            said = messages(row.fields.get(column), column)
        except UnusableRow as reason:
            yield Dialogue(number, row.where, (), str(reason))
            continue
        utterances = tuple(Utterance(message.role, message.content) for message in said)
        yield Dialogue(number, row.where, utterances, _fault(utterances))


def _assembled(rows: Iterable[Row], name: str) -> Iterator[Dialogue]:
    """Join the rows from each UtteranceId 0 on into one conversation."""
    number = 0
    begun: list[tuple[Row, dict[str, Any]]] = []
    for row in rows:
        if row.fault:
            raise DataError(f"{row.where}: {row.fault}; a conversation would lose a turn")
        fields = {_plain(key): value for key, value in row.fields.items()}
        if _id(fields, row.where) == 0 and begun:
            yield _joined(number, begun)
            number, begun = number + 1, []
        begun.append((row, fields))
    if begun:
        yield _joined(number, begun)


def _joined(number: int, rows: list[tuple[Row, dict[str, Any]]]) -> Dialogue:
    where = rows[0][0].where
    try:
        utterances = tuple(_utterance(fields) for _, fields in rows)
    except UnusableRow as reason:
        return Dialogue(number, where, (), str(reason))
    ids = [_id(fields, row.where) for row, fields in rows]
    fault = "" if ids == [*range(len(ids))] else "its turn ids are not complete"
    return Dialogue(number, where, utterances, fault or _fault(utterances))


def _utterance(fields: Mapping[str, Any]) -> Utterance:
    named, content = fields.get("role"), fields.get("content")
    role = ROLES.get(str(named).strip().lower())
    if role is None:
        raise UnusableRow(f"role {shown(named)} is not supported")
    if not isinstance(content, str) or not content.strip():
        raise UnusableRow("a turn without text")
    topic = next((value for key, value in fields.items() if key.startswith(_TOPIC)), None)
    return Utterance(
        role,
        content,
        _holds(fields.get("sat")),
        _holds(fields.get("dsat")),
        opens_topic=topic is not None and (not _holds(topic) or _says_new(topic)),
    )


def _holds(label: object) -> bool:
    """Whether a label is given: yes, a number other than 0, or the names of its signs."""
    if isinstance(label, list | tuple | set | Mapping):
        return bool(label)
    return label is not None and str(label).strip().lower() not in _NO


def _says_new(topic: object) -> bool:
    return isinstance(topic, str) and _NEW_TOPIC.fullmatch(topic.strip()) is not None


def _fault(utterances: tuple[Utterance, ...]) -> str:
    roles = [one.role for one in utterances if one.role != "system"]
    expected = [("user", "assistant")[place % 2] for place in range(len(roles))]
    return "" if roles == expected else "its turns do not alternate between user and assistant"


def _id(fields: Mapping[str, Any], where: str) -> int:
    value = fields.get("utteranceid")
    if isinstance(value, bool) or not isinstance(value, int | str | float):
        raise DataError(f"{where}: UtteranceId is {shown(value)}, not a number")
    try:
        return int(value)
    except ValueError as error:
        raise DataError(f"{where}: UtteranceId is {shown(value)}, not a number") from error


def _plain(key: str) -> str:
    return re.sub(r"[\W_]", "", key).lower()
