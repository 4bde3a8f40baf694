"""Prompts of one's own: a file of questions becomes requests."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from response_tuning.artifacts import Message, Request
from response_tuning.data.columns import (
    CONVERSATIONS,
    HISTORY,
    INPUTS,
    SYSTEMS,
    earlier_messages,
    joined,
)
from response_tuning.data.conversations import Said, UnusableRow, conversation, usable
from response_tuning.data.survey import INSTRUCTIONS
from response_tuning.errors import DataError
from response_tuning.readers import READERS, Row, read, shown

IDS = ("item_id", "id")


def read_prompts(path: Path, column: str | None = None) -> Iterator[Request]:
    """Yield one request for each row of a JSONL, JSON, CSV or Parquet file.

    The prompt is in ``column``, or under a usual name (``prompt``, ``instruction``, ``messages``
    ...); a conversation is asked up to its last user message. A row's ``id`` is kept where it has
    one, else it is the row's number from 0.

    Raises:
        DataError: the file or a row of it is unusable; one line naming it.
    """
    if path.suffix.lower() not in READERS:
        known = ", ".join(sorted(READERS))
        raise DataError(f"{path}: not a file of prompts; it is one of {known}")
    seen: set[str] = set()
    for number, row in enumerate(read(path)):
        try:
            request = _request(number, row, column)
        except UnusableRow as reason:
            raise DataError(f"{row.where}: {reason}") from reason
        if request.item_id in seen:
            raise DataError(f"{row.where}: id {shown(request.item_id)} is there twice; make it new")
        seen.add(request.item_id)
        yield request
    if not seen:
        raise DataError(f"{path}: it has no rows")


def _request(number: int, row: Row, column: str | None) -> Request:
    if row.fault:
        raise UnusableRow(row.fault)
    named = next((name for name in IDS if row.fields.get(name) is not None), None)
    prompt = _prompt(row.fields, column)
    if not prompt[-1].content.strip():
        raise UnusableRow("empty prompt")
    try:
        "".join(message.content for message in prompt).encode()
    except UnicodeEncodeError as error:
        raise UnusableRow("half a surrogate pair, which is not text") from error
    return Request(item_id=str(row.fields[named]) if named else str(number), prompt=tuple(prompt))


def _prompt(fields: Mapping[str, Any], column: str | None) -> list[Message]:
    usual = (*INSTRUCTIONS, *CONVERSATIONS, INPUTS[0])
    there = [name for name in usual if name in fields]
    name = column or next((name for name in there if fields[name]), next(iter(there), None))
    if name is None or name not in fields:
        listed = ", ".join(map(shown, fields))
        raise UnusableRow(
            f"no column {column or 'with a prompt'} among {listed}; name it with --column"
        )
    if isinstance(fields[name], list):
        asked = _asked(conversation(fields[name], name))
    else:
        about = () if name in (*INPUTS, *CONVERSATIONS) else _texts(fields, INPUTS)
        asked = [Message(role="user", content=joined(fields, [name], about))]
    system = next((other for other in _texts(fields, SYSTEMS) if other != name), None)
    history = HISTORY if isinstance(fields.get(HISTORY), list) else None
    return [*earlier_messages(fields, system, history, asked), *asked]


def _texts(fields: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [name for name in names if isinstance(fields.get(name), str)]


def _asked(found: Sequence[Said]) -> list[Message]:
    users = [place for place, said in enumerate(found) if said.role == "user"]
    asked = usable(found[: users[-1] + 1] if users else found)
    if not users:
        raise UnusableRow("no user message")
    return asked
