"""Statistics of a file of responses, in one pass that changes nothing."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from response_tuning.artifacts import Record
from response_tuning.configs import DataConfig
from response_tuning.data import columns, sources
from response_tuning.data.columns import Columns
from response_tuning.data.conversations import Turn, UnusableRow
from response_tuning.data.inspection.tallies import (
    FormTally,
    InstructionTally,
    LanguageTally,
    Lengths,
    LengthTally,
    PersonalDataTally,
    RefusalTally,
    RepeatTally,
    RestatementTally,
    Tally,
    Text,
    Top,
)
from response_tuning.data.sources import Source
from response_tuning.data.steps import personal
from response_tuning.errors import DataError


class Inspection(Record):
    """Statistics of a source. Counts are of assistant turns: one response each."""

    source: dict[str, Any]
    """Name, columns, and path with digest or hub id with commit."""
    columns_not_used: tuple[str, ...] = ()
    """Unused columns that may hold content."""
    rows: int
    turns: int
    not_looked_at: dict[str, int]
    """Reason -> rows, or turns of a row, that have no response or are not used."""
    with_instruction: int
    same_as_instruction: int
    """Responses that equal their instruction."""
    lengths: dict[str, Lengths]
    """Unit (``characters``, ``words`` and, with a tokenizer, ``tokens``) -> lengths."""
    repeats: int
    """Exact duplicates of an earlier response."""
    repeated: Top
    refusals: dict[str, int]
    """Selector (``phrases``, ``paper-regex``), or ``both`` -> responses."""
    restatements: int
    """Responses whose opening restates the instruction."""
    restatement_examples: tuple[Text, ...]
    with_personal_data: int
    personal_data: dict[str, int]
    """Kind -> responses with personal data of this kind."""
    personal_data_places: dict[str, list[str]]
    """Kind -> file and line, or record number, of the first responses."""
    languages: dict[str, int]
    """ISO 639 code -> responses; ``not told`` if undetermined: short texts, names, numbers."""
    openings: Top
    """The most frequent first three words."""
    endings: Top
    """The most frequent last three words."""
    ends: dict[str, int]
    """Kind of the last character -> responses."""
    cut: int
    """Responses that seem to stop within a sentence."""
    layouts: dict[str, int]
    """Responses with Markdown lists, headings and code fences."""


def inspect(
    config: DataConfig, count_tokens: Callable[[list[str]], list[int]] | None = None
) -> Inspection:
    """Count over every response of a source: nothing is dropped, sampled or curated.

    Memory holds a digest of each response and bounded counts, never the responses.

    Args:
        config: Names the source and its columns.
        count_tokens: Returns the token count of each of up to a thousand texts.

    Raises:
        ConfigError: the settings contradict each other.
        DataError: the source is missing, or none of its rows is usable.
    """
    source = sources.find(config)
    survey = sources.columns(source)
    used = columns.choose(survey, config, source.name)
    tallies: list[Tally] = [
        InstructionTally(),
        LengthTally(count_tokens),
        RepeatTally(),
        RefusalTally(),
        RestatementTally(),
        PersonalDataTally(),
        LanguageTally(),
        FormTally(),
    ]
    rows = turns = 0
    unusable: Counter[str] = Counter()
    for where, row in _outcomes(source, used):
        rows += 1
        for turn in row:
            if isinstance(turn, str):
                unusable[personal.masked(turn)] += 1  # a reason may quote the name of a speaker
                continue
            turns += 1
            for tally in tallies:
                tally.add(turn, where)
    if not turns:
        counts = ", ".join(f"{reason}: {count:,}" for reason, count in unusable.items())
        raise DataError(f"{source.name}: none of its {rows:,} rows is usable ({counts})")
    fields = {
        "source": {"name": config.source, **source.origin, "columns": used.named()},
        "columns_not_used": columns.not_used(survey, used),
        "rows": rows,
        "turns": turns,
        "not_looked_at": dict(unusable.most_common()),
    }
    for tally in tallies:
        fields |= tally.fields()
    return Inspection.model_validate(fields)


def _outcomes(source: Source, used: Columns) -> Iterator[tuple[str, list[Turn | str]]]:
    """Yield the place of each row and its turns; an unusable turn is the reason, as text."""
    for number, row in enumerate(source.rows()):
        try:
            turns = sources.turns(source, number, row, used)
        except UnusableRow as reason:
            yield row.where, [str(reason)]
            continue
        first = 1 if source.first_turn_only else len(turns)
        later = ["after the first turn, which alone the paper uses" for _ in turns[first:]]
        yield row.where, [*(_unfit(turn) or turn for turn in turns[:first]), *later]


def _unfit(turn: Turn) -> str | None:
    if turn.unfit:
        return turn.unfit
    if not turn.response or turn.response.isspace():
        return "empty response"
    try:
        f"{turn.response}{turn.instruction}".encode()
    except UnicodeEncodeError:
        return "half a surrogate pair, which is not text"
    return None
