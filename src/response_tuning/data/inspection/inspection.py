"""What is in a file of responses: one pass that counts, and changes nothing."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from response_tuning.artifacts import Record
from response_tuning.configs import DataConfig
from response_tuning.data import columns, sources
from response_tuning.data.columns import Columns
from response_tuning.data.conversations import Turn, UnusableRow
from response_tuning.data.inspection.tallies import (
    Forms,
    Instructions,
    Languages,
    Lengths,
    Measures,
    PersonalData,
    Refusals,
    Repeats,
    Restatements,
    Tally,
    Text,
    Top,
)
from response_tuning.data.sources import Source
from response_tuning.data.steps import personal
from response_tuning.errors import DataError


class Inspection(Record):
    """What was found in a source. Counts are of turns: one assistant's answer each."""

    source: dict[str, Any]
    """Name, columns, and path with digest or hub id with commit."""
    columns_not_used: tuple[str, ...] = ()
    """Columns that seem to say something."""
    rows: int
    turns: int
    not_looked_at: dict[str, int]
    """Reason -> rows, or turns of a row, that hold no response or are not used."""
    with_instruction: int
    same_as_instruction: int
    """Responses that are their instruction, word for word."""
    lengths: dict[str, Lengths]
    """By unit: ``characters``, ``words`` and, with a tokenizer, ``tokens``."""
    repeats: int
    """Responses that an earlier turn has word for word."""
    repeated: Top
    refusals: dict[str, int]
    """By selector (``phrases``, ``paper-regex``), and by ``both``."""
    restatements: int
    """Responses whose opening gives the instruction away."""
    restatement_examples: tuple[Text, ...]
    with_personal_data: int
    personal_data: dict[str, int]
    """Kind -> responses with such personal data."""
    personal_data_places: dict[str, list[str]]
    """Kind -> file and line, or record number, of the first of them."""
    languages: dict[str, int]
    """ISO 639 code -> responses; ``not told`` for short texts, lists of names, numbers."""
    openings: Top
    """The most frequent first three words."""
    endings: Top
    """The most frequent last three words."""
    ends: dict[str, int]
    """What the last sign is."""
    cut: int
    """Responses that seem to stop within a sentence."""
    layouts: dict[str, int]
    """Responses with Markdown lists, headings and code fences."""


def inspect(
    config: DataConfig, count_tokens: Callable[[list[str]], list[int]] | None = None
) -> Inspection:
    """Look at every response of a source as it stands: nothing is dropped, drawn or curated.

    Memory holds a digest of each response and bounded counts, never the responses.

    Args:
        config: Names the source and its columns.
        count_tokens: Returns how many tokens each of up to a thousand texts has.

    Raises:
        ConfigError: the settings contradict each other.
        DataError: the source is missing, or no row of it is usable.
    """
    source = sources.find(config)
    there = sources.columns(source)
    used = columns.choose(there, config, source.name)
    tallies: list[Tally] = [
        Instructions(),
        Measures(count_tokens),
        Repeats(),
        Refusals(),
        Restatements(),
        PersonalData(),
        Languages(),
        Forms(),
    ]
    rows = turns = 0
    unusable: Counter[str] = Counter()
    for where, found in _outcomes(source, used):
        rows += 1
        for said in found:
            if isinstance(said, str):
                unusable[personal.masked(said)] += 1  # a reason may quote who spoke
                continue
            turns += 1
            for tally in tallies:
                tally.add(said, where)
    if not turns:
        counts = ", ".join(f"{reason}: {count:,}" for reason, count in unusable.items())
        raise DataError(f"{source.name}: none of its {rows:,} rows is usable ({counts})")
    fields = {
        "source": {"name": config.source, **source.origin, "columns": used.named()},
        "columns_not_used": columns.not_used(there, used),
        "rows": rows,
        "turns": turns,
        "not_looked_at": dict(unusable.most_common()),
    }
    for tally in tallies:
        fields |= tally.fields()
    return Inspection.model_validate(fields)


def _outcomes(source: Source, used: Columns) -> Iterator[tuple[str, list[Turn | str]]]:
    """Yield for each row where it is, and its turns; in place of one not looked at, why."""
    for number, row in enumerate(source.rows()):
        try:
            turns = sources.turns(source, number, row, used)
        except UnusableRow as reason:
            yield row.where, [str(reason)]
            continue
        first = 1 if source.first_turn_only else len(turns)
        later = ["after the first turn, which alone the paper uses" for _ in turns[first:]]
        yield row.where, [*(_unfit(turn) or turn for turn in turns[:first]), *later]


def _unfit(said: Turn) -> str | None:
    if said.unfit:
        return said.unfit
    if not said.response or said.response.isspace():
        return "empty response"
    try:
        f"{said.response}{said.instruction}".encode()
    except UnicodeEncodeError:
        return "half a surrogate pair, which is not text"
    return None
