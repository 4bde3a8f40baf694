"""Which columns hold the response and what it answers, and how a row becomes turns."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from response_tuning.artifacts import Message
from response_tuning.configs import DataConfig
from response_tuning.data.conversations import (
    ROLE_KEYS,
    Said,
    Turn,
    UnusableRow,
    conversation,
    is_conversation,
    kind,
    messages,
    text,
    turns,
)
from response_tuning.data.marks import DETAILS, MARKS, plain, unlearned
from response_tuning.data.rendered import RENDERED as A_RENDERED
from response_tuning.data.rendered import is_rendered
from response_tuning.data.survey import INSTRUCTIONS, Column, Survey
from response_tuning.errors import ConfigError, DataError
from response_tuning.readers import shown

CONVERSATIONS = ("messages", "conversations")
RENDERED = "text"
"""Often a conversation with its markers, where there is a column of conversations as well."""
RESPONSES = ("response", "completion", "output", "answer", *CONVERSATIONS, RENDERED)
EARLIER = "earlier"
INPUTS = ("input", "context")
"""What an instruction is about: Alpaca's and Dolly's second column."""
SYSTEMS = ("system", "system_prompt", "system_message", "system_instruction")
HISTORY = "history"
PREFERENCES = ("chosen", "rejected")
LISTED = 20
"""Columns that an error names."""
_TELLING = {*RESPONSES, *INSTRUCTIONS, *INPUTS, *SYSTEMS, HISTORY, EARLIER, *MARKS} | {
    *ROLE_KEYS,
    "parent_id",
    "tools",
    "label",
}
"""Columns that may say what is to be learned, whatever is in them."""
_SPEAKING = {*ROLE_KEYS, "type", "name", "party", "side"}
"""Words in the names of columns that may say who speaks."""
_METADATA = {"row", "turn", "index", "idx", "uuid", "source", "dataset", "subset", "split"} | {
    *("category", "categories", "task", "topic", "domain", "tags", "labels", "lang", "language"),
    *("license", "url", "link", "date", "timestamp", "model", "metadata", "meta", "title", "type"),
    *("score", "scores", "rating", "quality", "difficulty", "detoxify", "emojis", "generator"),
}
"""Columns that are about a row, and are not missed."""


class Columns(NamedTuple):
    """The columns of a source that are used."""

    response: str
    instruction: str | None = None
    input: str | None = None
    context: str | None = None
    """Where there is one beside ``input``."""
    system: str | None = None
    history: str | None = None
    otherwise: tuple[str, ...] = ()
    """Instructions of rows in which ``instruction`` is empty."""
    marks: tuple[str, ...] = ()
    """What says of a row whether it is to be learned."""

    def named(self) -> dict[str, Any]:
        """Return them for the audit: the usual three, and what else there is."""
        fields = self._asdict().items()
        return {name: value for name, value in fields if value or name in self._fields[:3]}


def choose(found: Survey, config: DataConfig, name: str) -> Columns:
    """Decide, from all rows of the source called ``name``, which columns are used.

    Raises:
        ConfigError: the same column is named as response and as instruction.
        DataError: there is no response column, a named column is not there, or a row is no more
            than one message of a conversation.
    """
    for flag in ("response_column", "instruction_column"):
        named = getattr(config, flag)
        if named is not None and named not in found.columns:
            raise DataError(
                f"{name}: no column {shown(named)} (--{flag.replace('_', '-')}); "
                f"its columns are {listed(found.columns)}"
            )
    response = config.response_column or _response(found, name)
    if response == config.instruction_column:
        raise ConfigError(f"column {shown(response)} cannot be both response and instruction")
    others = {column: held for column, held in found.columns.items() if column != response}
    _check_not_rendered(response, found.columns[response], name)
    used = _with_instruction(response, found.columns[response], others, config.instruction_column)
    if used.instruction is None or not others[used.instruction].filled:
        _check_whole(response, found, name)
    marks = tuple(sorted(column for column in others if _is_mark(column, others[column], name)))
    return used._replace(
        system=_with_texts(others, SYSTEMS, used.instruction),
        history=HISTORY if others.get(HISTORY, Column()).lists else None,
        marks=marks,
    )


def not_used(found: Survey, used: Columns) -> list[str]:
    """Return the columns that seem to say something and are not used, in the source's order."""
    known: set[str | None] = {*_METADATA}
    if found.columns.get(EARLIER, Column()).lists:
        known.add(EARLIER)
    known |= {*used[:6], *used.marks}
    known |= {name for name in used.otherwise if not found.columns[name].overlooked}
    names = [
        name
        for name, column in found.columns.items()
        if name not in known and column.filled and _says_something(name, column)
    ]
    read = (used.response, used.instruction, used.history)
    return names + [
        f"{column}[].{key}"
        for column in filter(None, read)
        for key, is_flag in sorted(found.columns[column].message_flags.items())
        if is_flag and plain(key) not in MARKS | DETAILS and not _is_about_rows(key)
    ]


def _says_something(name: str, column: Column) -> bool:
    if name in _TELLING or plain(name) in MARKS:
        return True
    is_flag = column.flags == column.filled
    return (column.has_words or column.lists > 0 or is_flag) and not _is_about_rows(name)


def _is_about_rows(name: str) -> bool:
    return name == "id" or name.endswith(("_id", "_at", "_date", "_url"))


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
    unfit = unlearned(fields, columns.marks)
    if not _is_in_turns(columns.response, said) and not is_conversation(asked):
        names = (columns.instruction, *columns.otherwise)
        about = (columns.input, columns.context)
        instruction = joined(fields, [*filter(None, names)], [*filter(None, about)]) or None
        earlier = earlier_messages(fields, columns.system, columns.history)
        response = text(said, columns.response)
        rendered = A_RENDERED if is_rendered(response) else ""
        return [Turn(response, instruction, tuple(earlier), unfit, rendered)]
    before = _said(columns.instruction or "", asked, "user") if asked else []
    whole = [*before, *_said(columns.response, said, "assistant")]
    earlier = earlier_messages(fields, columns.system, columns.history, whole)
    context = [Said(message.role, message.content) for message in earlier]
    found = list(turns([*context, *whole], start=len(context) + len(before)))
    if not found:
        fault = next((said.fault for said in whole if said.fault), "")
        raise UnusableRow(fault or "no assistant turn")
    return [turn._replace(unfit=turn.unfit or unfit) for turn in found] if unfit else found


def joined(fields: Mapping[str, Any], names: Sequence[str], about: Sequence[str]) -> str:
    """Return an instruction, under the first of ``names`` with one, and what it is about.

    Training and asking both join them here.

    Raises:
        UnusableRow: one of them is no text.
    """
    name = next((name for name in names if fields.get(name) not in (None, "")), None)
    used = [*([name] if name else []), *(other for other in about if other != name)]
    parts = [text(fields.get(column), column) for column in used]
    return "\n\n".join(part for part in parts if part)


def earlier_messages(
    fields: Mapping[str, Any],
    system: str | None,
    history: str | None,
    conversation: Sequence[Said | Message] = (),
) -> list[Message]:
    """Return the earlier messages that stand in columns of their own.

    Raises:
        UnusableRow: it cannot be read.
    """
    earlier = fields.get(EARLIER)  # the row is an example that this package wrote
    found = messages(earlier, EARLIER) if is_conversation(earlier) else []
    if history is not None and fields.get(history):
        found = [*_history(fields[history], history), *found]
    said = text(fields.get(system), system) if system else ""
    if not said:
        return found
    first: Message | Said | None = next(iter((*found, *conversation)), None)
    if first is not None and (first.role, first.content) == ("system", said):
        return found
    return [Message(role="system", content=said), *found]


def _response(found: Survey, name: str) -> str:
    speaking = [column for column, held in found.columns.items() if held.conversations]
    speaking = [column for column in speaking if column not in (*INSTRUCTIONS, *_NO_RESPONSES)]
    order = dict.fromkeys((*RESPONSES[:-1], *speaking, RENDERED))
    there = {column: found.columns[column].filled for column in order if column in found.columns}
    if not there:
        columns = listed(found.columns)
        if {*PREFERENCES} <= found.columns.keys():
            raise DataError(
                f"{name}: preference data, with the columns {columns}; name the answers to learn, "
                f"such as --response-column {PREFERENCES[0]}"
            )
        _check_whole("", found, name)
        raise DataError(
            f"{name}: no response column among {columns}; name it with --response-column NAME"
        )
    # Not a stray column that few rows have; the rows without the column are counted.
    enough = max(there.values()) / 2
    return next(column for column, filled in there.items() if filled >= enough)


_NO_RESPONSES = (*PREFERENCES, EARLIER, HISTORY)


def _with_instruction(
    response: str, said: Column, others: Mapping[str, Column], named: str | None
) -> Columns:
    usual = [name for name in INSTRUCTIONS if name in others]
    filled = [name for name in usual if others[name].filled]
    instruction = named or next(iter((*filled, *usual)), None)
    in_turns = instruction is not None and bool(others[instruction].conversations)
    if response in CONVERSATIONS or said.conversations:
        # A conversation holds its own instructions, unless it goes on from another (TRL's prompt
        # and completion); a prompt column beside it repeats its first turn.
        goes_on = named is not None or in_turns
        return Columns(response, instruction if goes_on else None)
    if in_turns:
        return Columns(response, instruction)
    if instruction is None:
        return Columns(response, "input" if "input" in others else None)
    about = [name for name in INPUTS if name in others and name != instruction]
    with_text = [name for name in about if others[name].texts or not others[name].filled]
    first, second, *_ = (*with_text, None, None)
    otherwise = tuple(name for name in filled if name != instruction) if named is None else ()
    return Columns(response, instruction, first, second, otherwise=otherwise)


def _check_whole(response: str, found: Survey, name: str) -> None:
    """Refuse rows that are one message each: what people ask would be learned as an answer."""
    if response and found.columns[response].lists:
        return  # whole conversations
    for column, held in found.columns.items():
        if column != response and _says_who_speaks(column, held):
            raise DataError(
                f"{name}: one message a row, as column {shown(column)} says who speaks "
                f"({', '.join(sorted(held.speakers))}), so that questions would be learned as "
                "answers; write one conversation a row, as a list in a column 'messages'"
            )


def _with_texts(
    others: Mapping[str, Column], names: Sequence[str], taken: str | None
) -> str | None:
    with_texts = (name for name in names if others.get(name, Column()).texts and name != taken)
    return next(with_texts, None)


def _says_who_speaks(name: str, column: Column) -> bool:
    if not column.names_speakers or "user" not in column.speakers:
        return False
    if plain(name) in ROLE_KEYS:
        return True
    words = {*re.split(r"[\W_]+", plain(name))}
    return "assistant" in column.speakers and not words.isdisjoint(_SPEAKING)


def _check_not_rendered(response: str, held: Column, name: str) -> None:
    """Refuse conversations that are written out: questions would be learned with the answers."""
    if 2 * held.rendered > held.filled:
        raise DataError(
            f"{name}: column {shown(response)} holds whole conversations, each as one text "
            f"({held.rendered:,} of {held.filled:,} rows), so that questions would be learned with "
            "the answers; write each as a list in a column 'messages', or split it into columns "
            "'instruction' and 'response'"
        )


def _is_mark(column: str, held: Column, name: str) -> bool:
    """Whether a column says which rows are to be learned; one odd value does not undo that."""
    if plain(column) not in MARKS:
        return False
    if held.lists_of_flags:
        raise DataError(
            f"{name}: column {shown(column)} holds lists, which are not read as marks; mark each "
            'message that is not to be learned with "weight": 0, or the row with one 0 or 1'
        )
    return held.flags > 0


def _history(value: object, column: str) -> list[Message]:
    """Read earlier turns: pairs of question and answer, or messages."""
    if not isinstance(value, list):
        raise UnusableRow(f"{column} is {kind(value)}, not a list of pairs")
    if not all(isinstance(pair, list) for pair in value):
        return messages(value, column)
    if any(len(pair) != 2 for pair in value):
        raise UnusableRow(f"{column} is not a list of pairs")
    return messages([text(part, column) for pair in value for part in pair], column)


def _is_in_turns(column: str, value: object) -> bool:
    return is_conversation(value) or (column in CONVERSATIONS and value is not None)


def _said(column: str, value: object, role: str) -> list[Said]:
    if _is_in_turns(column, value):
        return conversation(value, column)
    return [Said(role, text(value, column))]


def listed(columns: Iterable[str]) -> str:
    """Return the names of columns for a message of one line."""
    names = [shown(name) for name in columns]
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return (", ".join(names[:LISTED]) or "none") + more
