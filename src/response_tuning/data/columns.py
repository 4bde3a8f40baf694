"""Which columns hold the response and the instruction, and how a row becomes turns."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

from response_tuning.artifacts import Message
from response_tuning.configs import DataConfig
from response_tuning.data.conversations import (
    Turn,
    UnusableRow,
    is_conversation,
    messages,
    text,
    turns,
)
from response_tuning.errors import ConfigError, DataError
from response_tuning.readers import shown

CONVERSATIONS = ("messages", "conversations")
RESPONSES = ("response", "completion", "output", "answer", "text", *CONVERSATIONS)
INSTRUCTIONS = ("instruction", "prompt", "question", "query")
EARLIER = "earlier"
INPUTS = ("input", "context")
"""What an instruction is about: Alpaca's and Dolly's second column."""


class Columns(NamedTuple):
    """The columns of a source that are used."""

    response: str
    instruction: str | None = None
    input: str | None = None


def choose(first: Mapping[str, Any], config: DataConfig, name: str) -> Columns:
    """Decide, from the first row of the source called ``name``, which columns are used.

    Raises:
        ConfigError: the same column is named as response and as instruction.
        DataError: there is no response column, or a named column is not there.
    """
    for flag in ("response_column", "instruction_column"):
        named = getattr(config, flag)
        if named is not None and named not in first:
            raise DataError(
                f"{name}: no column {shown(named)} (--{flag.replace('_', '-')}); "
                f"its columns are {_listed(first)}"
            )
    response = config.response_column or _find(first, RESPONSES)
    if response is None:
        raise DataError(
            f"{name}: no response column among {_listed(first)}; name it with "
            "--response-column NAME"
        )
    if response == config.instruction_column:
        raise ConfigError(f"column {shown(response)} cannot be both response and instruction")
    others = {column: value for column, value in first.items() if column != response}
    return _with_instruction(response, first[response], others, config.instruction_column)


def row_turns(fields: Mapping[str, Any], columns: Columns) -> list[Turn]:
    """Return the assistant turns of a row: at least one.

    Assistant turns of a conversation in the instruction column are context, not answers.

    Raises:
        UnusableRow: the row has none; the message says why.
    """
    if columns.response not in fields:
        raise UnusableRow(f"no column {shown(columns.response)}")
    said = fields[columns.response]
    asked = fields.get(columns.instruction) if columns.instruction else None
    if not _is_in_turns(columns.response, said) and not is_conversation(asked):
        return [Turn(text(said, columns.response), _instruction(fields, columns), _earlier(fields))]
    before = _messages(columns.instruction or "", asked, "user") if asked else []
    conversation = [*before, *_messages(columns.response, said, "assistant")]
    found = list(turns(conversation, start=len(before)))
    if not found:
        raise UnusableRow("no assistant turn")
    return found


def _with_instruction(
    response: str, said: object, others: Mapping[str, Any], named: str | None
) -> Columns:
    instruction = named or _find(others, INSTRUCTIONS)
    asked = others[instruction] if instruction else None
    if response in CONVERSATIONS or is_conversation(said):
        # A conversation holds its own instructions, unless it goes on from another (TRL's prompt
        # and completion); a prompt column beside it repeats its first turn.
        goes_on = named is not None or is_conversation(asked)
        return Columns(response, instruction if goes_on else None)
    if instruction is None or is_conversation(asked):
        return Columns(response, instruction or ("input" if "input" in others else None))
    is_text = [name for name in INPUTS if isinstance(others.get(name, 0), str | None)]
    return Columns(response, instruction, next((c for c in is_text if c != instruction), None))


def _instruction(fields: Mapping[str, Any], columns: Columns) -> str | None:
    parts = [text(fields.get(name), name) for name in columns[1:] if name is not None]
    return "\n\n".join(part for part in parts if part) or None


def _earlier(fields: Mapping[str, Any]) -> tuple[Message, ...]:
    """Return what was said before, where a row is an example that this package wrote."""
    earlier = fields.get(EARLIER)
    return tuple(messages(earlier, EARLIER)) if is_conversation(earlier) else ()


def _is_in_turns(column: str, value: object) -> bool:
    return is_conversation(value) or (column in CONVERSATIONS and value is not None)


def _messages(column: str, value: object, role: Literal["user", "assistant"]) -> list[Message]:
    if _is_in_turns(column, value):
        return messages(value, column)
    return [Message.model_construct(role=role, content=text(value, column))]


def _find(columns: Iterable[str], usual: Iterable[str]) -> str | None:
    there = set(columns)
    return next((name for name in usual if name in there), None)


def _listed(columns: Iterable[str]) -> str:
    return ", ".join(shown(name) for name in columns) or "none"
