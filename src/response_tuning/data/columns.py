"""Which columns hold the response and its instruction, and how a row becomes turns."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from response_tuning.artifacts import Message
from response_tuning.configs import SourceConfig
from response_tuning.data.conversations import (
    ROLE_KEYS,
    SourceMessage,
    Turn,
    UnusableRow,
    conversation,
    is_conversation,
    kind,
    messages,
    text,
    turns,
)
from response_tuning.data.marks import DETAILS, MARK_NAMES, plain, unlearned
from response_tuning.data.rendered import RENDERED, is_rendered
from response_tuning.data.survey import INSTRUCTION_COLUMNS, Column, Survey
from response_tuning.errors import ConfigError, DataError
from response_tuning.mailboxes import MAIL_HEADERS
from response_tuning.readers import shown

CONVERSATION_COLUMNS = ("messages", "conversations")
TEXT = "text"
"""Often the rendered conversation, in sources that also have a column of conversations."""
RESPONSE_COLUMNS = ("response", "completion", "output", "answer", *CONVERSATION_COLUMNS, TEXT)
_ALIKE = (*RESPONSE_COLUMNS, "body", "reply", "antwort", "corps", "cuerpo", "corpo")
"""Names of the response in spreadsheets and in Outlook's export, in any case."""
_ASKED_ALIKE = (*INSTRUCTION_COLUMNS, "frage")
EARLIER = "earlier"
INPUT_COLUMNS = ("input", "context")
"""The material of an instruction: Alpaca's and Dolly's second column."""
SYSTEM_COLUMNS = ("system", "system_prompt", "system_message", "system_instruction")
HISTORY = "history"
PREFERENCES = ("chosen", "rejected")
LISTED_COLUMNS = 20
"""Most columns that an error lists."""
_CONTENT = {*RESPONSE_COLUMNS, *INSTRUCTION_COLUMNS, *INPUT_COLUMNS, *SYSTEM_COLUMNS} | {
    *(HISTORY, EARLIER, *MARK_NAMES),
    *ROLE_KEYS,
    "parent_id",
    "tools",
    "label",
}
"""Columns that may hold training content or marks, whatever their values are."""
_SPEAKER_WORDS = {*ROLE_KEYS, "type", "name", "party", "side"}
"""Words in the names of columns that may name a speaker."""
_METADATA = {"row", "turn", "index", "idx", "uuid", "source", "dataset", "subset", "split"} | {
    *("category", "categories", "task", "topic", "domain", "tags", "labels", "lang", "language"),
    *("license", "url", "link", "date", "timestamp", "model", "metadata", "meta", "title", "type"),
    *("score", "scores", "rating", "quality", "difficulty", "detoxify", "emojis", "generator"),
}
"""Columns that describe a row; leaving them unused needs no warning."""


class Columns(NamedTuple):
    """The columns of a source that are used."""

    response: str
    instruction: str | None = None
    input: str | None = None
    context: str | None = None
    """A second column of material, beside ``input``."""
    system: str | None = None
    history: str | None = None
    otherwise: tuple[str, ...] = ()
    """Instruction columns for rows in which ``instruction`` is empty."""
    marks: tuple[str, ...] = ()
    """Columns that mark whether to train on a row."""
    rejected: str | None = None
    """The column of the answers to which those of ``response`` were preferred."""
    digit: str | None = None
    """The column of the grades of the answers in ``response``."""
    reference: str | None = None
    """The column of good answers, beside ``digit``."""

    def named(self) -> dict[str, Any]:
        """Return the columns for the audit: always the first three, and all others in use."""
        fields = self._asdict().items()
        return {name: value for name, value in fields if value or name in self._fields[:3]}


def choose(survey: Survey, config: SourceConfig, name: str) -> Columns:
    """Decide which columns of the source called ``name`` to use, from the survey of all rows.

    Raises:
        ConfigError: the same column is named as response and as instruction.
        DataError: the source has no response column or lacks a named column, or each row is a
            single message of a conversation.
    """
    for flag in ("response_column", "instruction_column"):
        named = getattr(config, flag)
        if named is not None and named not in survey.columns:
            raise DataError(
                f"{name}: no column {shown(named)} (--{flag.replace('_', '-')}); "
                f"its columns are {listed(survey.columns)}"
            )
    response = config.response_column or _response(survey, name)
    if response == config.instruction_column:
        raise ConfigError(f"column {shown(response)} cannot be both response and instruction")
    others = {key: column for key, column in survey.columns.items() if key != response}
    _check_not_rendered(response, survey.columns[response], name)
    used = _with_instruction(response, survey.columns[response], others, config.instruction_column)
    # Without instructions, the column of responses may mix both sides of a conversation.
    if used.instruction is None or not others[used.instruction].filled:
        _check_whole(response, survey, name)
    marks = tuple(sorted(key for key in others if _is_mark(key, others[key], name)))
    return used._replace(
        system=_with_texts(others, SYSTEM_COLUMNS, used.instruction),
        history=HISTORY if others.get(HISTORY, Column()).lists else None,
        marks=marks,
    )


def not_used(survey: Survey, used: Columns) -> list[str]:
    """Return the columns that may hold content and are not used, in the source's order."""
    known: set[str | None] = {*_METADATA}
    if survey.columns.get(EARLIER, Column()).lists:
        known.add(EARLIER)
    known |= {*used[:6], *used.marks, used.rejected, used.digit, used.reference}
    known |= {name for name in used.otherwise if not survey.columns[name].overlooked}
    if survey.columns.keys() == {used.response, *MAIL_HEADERS}:  # a mailbox
        known |= {*MAIL_HEADERS}
    names = [
        name
        for name, column in survey.columns.items()
        if name not in known and column.filled and _may_be_content(name, column)
    ]
    # A yes or no in each message may also be a mark, under a name that nobody knows.
    conversations = (used.response, used.instruction, used.history)
    return names + [
        f"{column}[].{key}"
        for column in filter(None, conversations)
        for key, is_flag in sorted(survey.columns[column].message_flags.items())
        if is_flag and plain(key) not in MARK_NAMES | DETAILS and not _is_about_rows(key)
    ]


def _may_be_content(name: str, column: Column) -> bool:
    if name in _CONTENT or plain(name) in MARK_NAMES:
        return True
    is_flag = column.flags == column.filled
    return (column.has_words or column.lists > 0 or is_flag) and not _is_about_rows(name)


def _is_about_rows(name: str) -> bool:
    return name == "id" or name.endswith(("_id", "_at", "_date", "_url"))


def row_turns(fields: Mapping[str, Any], columns: Columns) -> list[Turn]:
    """Return the assistant turns of a row: at least one.

    Assistant turns of a conversation in the instruction column are context, not examples.

    Raises:
        UnusableRow: the row has no assistant turn; the message says why.
    """
    if columns.response not in fields:
        raise UnusableRow(f"no column {shown(columns.response)}")
    response = fields[columns.response]
    instruction = fields.get(columns.instruction) if columns.instruction else None
    unfit = unlearned(fields, columns.marks)
    if not _is_in_turns(columns.response, response) and not is_conversation(instruction):
        return [_single_turn(fields, columns, unfit)]
    before = _messages(columns.instruction or "", instruction, "user") if instruction else []
    whole = [*before, *_messages(columns.response, response, "assistant")]
    # History and system columns come first. Turns only count from behind the instruction's
    # conversation: its assistant turns are context.
    earlier = earlier_messages(fields, columns.system, columns.history, whole)
    context = [SourceMessage(message.role, message.content) for message in earlier]
    row = list(turns([*context, *whole], start=len(context) + len(before)))
    if not row:
        fault = next((message.fault for message in whole if message.fault), "")
        raise UnusableRow(fault or "no assistant turn")
    return [turn._replace(unfit=turn.unfit or unfit) for turn in row] if unfit else row


def _single_turn(fields: Mapping[str, Any], columns: Columns, unfit: str) -> Turn:
    """Return the turn of a row whose columns hold plain texts."""
    names = (columns.instruction, *columns.otherwise)
    materials = (columns.input, columns.context)
    instruction = joined(fields, [*filter(None, names)], [*filter(None, materials)]) or None
    earlier = earlier_messages(fields, columns.system, columns.history)
    response = text(fields[columns.response], columns.response)
    rendered = RENDERED if is_rendered(response) else ""
    return Turn(response, instruction, tuple(earlier), unfit, rendered)


def joined(fields: Mapping[str, Any], names: Sequence[str], materials: Sequence[str]) -> str:
    """Return the instruction in the first filled column of ``names``, with its ``materials``.

    Training data and prompts are both joined here, so that they look alike.

    Raises:
        UnusableRow: a value is not text.
    """
    name = next((name for name in names if fields.get(name) not in (None, "")), None)
    used = [*([name] if name else []), *(other for other in materials if other != name)]
    parts = [text(fields.get(column), column) for column in used]
    return "\n\n".join(part for part in parts if part)


def earlier_messages(
    fields: Mapping[str, Any],
    system: str | None,
    history: str | None,
    conversation: Sequence[SourceMessage | Message] = (),
) -> list[Message]:
    """Return the messages before a conversation that have columns of their own.

    Raises:
        UnusableRow: one of these columns cannot be read.
    """
    earlier = fields.get(EARLIER)  # only in examples that this package wrote
    before = messages(earlier, EARLIER) if is_conversation(earlier) else []
    if history is not None and fields.get(history):
        before = [*_history(fields[history], history), *before]
    prompt = text(fields.get(system), system) if system else ""
    if not prompt:
        return before
    # Some sources repeat the system prompt: in a column and as the first message.
    first: Message | SourceMessage | None = next(iter((*before, *conversation)), None)
    if first is not None and (first.role, first.content) == ("system", prompt):
        return before
    return [Message(role="system", content=prompt), *before]


def _response(survey: Survey, name: str) -> str:
    """Return the column of responses: the first usual one that enough rows fill."""
    no_response = {*INSTRUCTION_COLUMNS, *PREFERENCES, EARLIER, HISTORY}
    spoken = [key for key, column in survey.columns.items() if column.conversations]
    others = [key for key in spoken if key not in no_response]
    # "text" comes last: beside a column of conversations it is the same, rendered.
    order = dict.fromkeys((*RESPONSE_COLUMNS[:-1], *others, TEXT))
    filled = {key: survey.columns[key].filled for key in order if key in survey.columns}
    if not filled and (alike := _alike(survey.columns, _ALIKE)):
        return alike[0]
    if not filled:
        columns = listed(survey.columns)
        if {*PREFERENCES} <= survey.columns.keys():
            raise DataError(
                f"{name}: preference data, with the columns {columns}; name the answers to learn, "
                f"such as --response-column {PREFERENCES[0]}, or read pairs: data.preferences={{}}"
            )
        _check_whole("", survey, name)
        raise DataError(
            f"{name}: no response column among {columns}; name it with --response-column NAME"
        )
    # A stray column that few rows have is passed over. Rows without the column are dropped, and
    # counted.
    enough = max(filled.values()) / 2
    return next(key for key, rows in filled.items() if rows >= enough)


def _with_instruction(
    response: str, responses: Column, others: Mapping[str, Column], named: str | None
) -> Columns:
    """Return the columns of the instruction and its material, for a column of responses."""
    usual = [name for name in INSTRUCTION_COLUMNS if name in others]
    if response not in RESPONSE_COLUMNS and not usual:
        usual = _alike(others, _ASKED_ALIKE)
    filled = [name for name in usual if others[name].filled]
    instruction = named or next(iter((*filled, *usual)), None)
    in_turns = instruction is not None and bool(others[instruction].conversations)
    if response in CONVERSATION_COLUMNS or responses.conversations:
        # A conversation holds its own instructions, unless it continues another one (TRL's prompt
        # and completion). A prompt column beside it only repeats its first turn.
        continues = named is not None or in_turns
        return Columns(response, instruction if continues else None)
    if in_turns:
        return Columns(response, instruction)
    if instruction is None:
        return Columns(response, "input" if "input" in others else None)
    materials = [name for name in INPUT_COLUMNS if name in others and name != instruction]
    with_text = [name for name in materials if others[name].texts or not others[name].filled]
    first, second, *_ = (*with_text, None, None)
    otherwise = tuple(name for name in filled if name != instruction) if named is None else ()
    return Columns(response, instruction, first, second, otherwise=otherwise)


def _alike(names: Mapping[str, Column], usual: Sequence[str]) -> list[str]:
    """Return the filled columns whose names differ from usual ones in their case alone."""
    filled = [name for name, column in names.items() if column.texts and plain(name) in usual]
    return sorted(filled, key=lambda name: usual.index(plain(name)))


def _check_whole(response: str, survey: Survey, name: str) -> None:
    """Refuse rows that are one message each: training would learn questions as answers."""
    if response and survey.columns[response].lists:
        return  # whole conversations
    for key, column in survey.columns.items():
        if key != response and _names_speakers(key, column):
            raise DataError(
                f"{name}: each row is one message, as column {shown(key)} names the speaker "
                f"({', '.join(sorted(column.speakers))}); training would learn questions as "
                "answers; write one conversation a row, as a list in a column 'messages'"
            )


def _with_texts(
    others: Mapping[str, Column], names: Sequence[str], taken: str | None
) -> str | None:
    with_texts = (name for name in names if others.get(name, Column()).texts and name != taken)
    return next(with_texts, None)


def _names_speakers(name: str, column: Column) -> bool:
    if not column.names_speakers or "user" not in column.speakers:
        return False
    if plain(name) in ROLE_KEYS:
        return True
    words = {*re.split(r"[\W_]+", plain(name))}
    return "assistant" in column.speakers and not words.isdisjoint(_SPEAKER_WORDS)


def _check_not_rendered(response: str, column: Column, name: str) -> None:
    """Refuse rendered conversations: training would learn the questions with the answers."""
    if 2 * column.rendered > column.filled:
        raise DataError(
            f"{name}: column {shown(response)} holds whole conversations, each as one text "
            f"({column.rendered:,} of {column.filled:,} rows); training would learn the questions "
            "with the answers; write each as a list in a column 'messages', or split it into "
            "columns 'instruction' and 'response'"
        )


def _is_mark(key: str, column: Column, name: str) -> bool:
    """Whether a column marks rows for training; an odd value in some rows does not change that."""
    if plain(key) not in MARK_NAMES:
        return False
    if column.lists_of_flags:
        raise DataError(
            f"{name}: column {shown(key)} holds lists, which are not read as marks; give each "
            'message to exclude from training "weight": 0, or mark the whole row with 0 or 1'
        )
    return column.flags > 0


def _history(value: object, column: str) -> list[Message]:
    """Read earlier turns: pairs of prompt and response, or messages."""
    if not isinstance(value, list):
        raise UnusableRow(f"{column} is {kind(value)}, not a list of pairs")
    if not all(isinstance(pair, list) for pair in value):
        return messages(value, column)
    if any(len(pair) != 2 for pair in value):
        raise UnusableRow(f"{column} is not a list of pairs")
    return messages([text(part, column) for pair in value for part in pair], column)


def _is_in_turns(column: str, value: object) -> bool:
    return is_conversation(value) or (column in CONVERSATION_COLUMNS and value is not None)


def _messages(column: str, value: object, role: str) -> list[SourceMessage]:
    if _is_in_turns(column, value):
        return conversation(value, column)
    return [SourceMessage(role, text(value, column))]


def listed(columns: Iterable[str]) -> str:
    """Return the names of columns for an error of one line."""
    names = [shown(name) for name in columns]
    more = f" and {len(names) - LISTED_COLUMNS:,} more" if len(names) > LISTED_COLUMNS else ""
    return (", ".join(names[:LISTED_COLUMNS]) or "none") + more
