"""The user's own file of prompts becomes requests."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from response_tuning.artifacts import Message, Request
from response_tuning.data.columns import (
    CONVERSATION_COLUMNS,
    HISTORY,
    INPUT_COLUMNS,
    SYSTEM_COLUMNS,
    earlier_messages,
    joined,
)
from response_tuning.data.conversations import SourceMessage, UnusableRow, conversation, usable
from response_tuning.data.survey import INSTRUCTION_COLUMNS
from response_tuning.errors import DataError
from response_tuning.readers import READERS, Row, read, shown

ID_COLUMNS = ("item_id", "id")


def read_prompts(path: Path, column: str | None = None) -> Iterator[Request]:
    """Yield one request for each row of a JSONL, JSON, CSV or Parquet file.

    The prompt is in ``column``, or under a usual name (``prompt``, ``instruction``, ``messages``
    ...); a conversation is cut behind its last user message. The id of a request is the row's
    ``id``, or else the number of the row from 0.

    Raises:
        DataError: the file or one of its rows is unusable; one line that names it.
    """
    if path.suffix.lower() not in READERS:
        known = ", ".join(sorted(READERS))
        raise DataError(f"{path}: not a file of prompts; give one of {known}")
    # Ids join completions with their scores later, so they must be unique.
    seen: set[str] = set()
    for number, row in enumerate(read(path)):
        try:
            request = _request(number, row, column)
        except UnusableRow as reason:
            raise DataError(f"{row.where}: {reason}") from reason
        if request.item_id in seen:
            raise DataError(f"{row.where}: id {shown(request.item_id)} is not unique; change it")
        seen.add(request.item_id)
        yield request
    if not seen:
        raise DataError(f"{path}: it has no rows")


def _request(number: int, row: Row, column: str | None) -> Request:
    if row.fault:
        raise UnusableRow(row.fault)
    named = next((name for name in ID_COLUMNS if row.fields.get(name) is not None), None)
    prompt = _prompt(row.fields, column)
    if not prompt[-1].content.strip():
        raise UnusableRow("empty prompt")
    try:
        "".join(message.content for message in prompt).encode()
    except UnicodeEncodeError as error:
        raise UnusableRow("half a surrogate pair, which is not text") from error
    return Request(item_id=str(row.fields[named]) if named else str(number), prompt=tuple(prompt))


def _prompt(fields: Mapping[str, Any], column: str | None) -> list[Message]:
    usual = (*INSTRUCTION_COLUMNS, *CONVERSATION_COLUMNS, INPUT_COLUMNS[0])
    present = [name for name in usual if name in fields]
    # An empty column is better than none: its error names the row, not the columns.
    name = column or next((name for name in present if fields[name]), next(iter(present), None))
    if name is None or name not in fields:
        listed = ", ".join(map(shown, fields))
        raise UnusableRow(
            f"no column {column or 'with a prompt'} among {listed}; name it with --column"
        )
    if isinstance(fields[name], list):
        prompt = _up_to_last_user(conversation(fields[name], name))
    else:
        alone = name in (*INPUT_COLUMNS, *CONVERSATION_COLUMNS)
        materials = () if alone else _texts(fields, INPUT_COLUMNS)
        prompt = [Message(role="user", content=joined(fields, [name], materials))]
    system = next((other for other in _texts(fields, SYSTEM_COLUMNS) if other != name), None)
    history = HISTORY if isinstance(fields.get(HISTORY), list) else None
    return [*earlier_messages(fields, system, history, prompt), *prompt]


def _texts(fields: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return [name for name in names if isinstance(fields.get(name), str)]


def _up_to_last_user(messages: Sequence[SourceMessage]) -> list[Message]:
    users = [place for place, message in enumerate(messages) if message.role == "user"]
    prompt = usable(messages[: users[-1] + 1] if users else messages)
    if not users:
        raise UnusableRow("no user message")
    return prompt
