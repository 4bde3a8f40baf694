"""An inspection for eyes: the same tables in the terminal and on a page."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from response_tuning.artifacts import written_aside
from response_tuning.data.inspection.inspection import Inspection
from response_tuning.data.inspection.tallies import SHOWN, Lengths, Top
from response_tuning.pages import environment
from response_tuning.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console


BAR_CHARACTERS = 40


class Table(NamedTuple):
    """Rows of numbers and, behind them, of text."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: int
    """How many columns, from the first on, hold numbers."""
    note: str = ""
    bars: tuple[float, ...] = ()
    """For each row the length of its bar, as a share of the longest; none without bars."""


def print_inspection(found: Inspection, console: "Console") -> None:
    """Print what was found: in colour to a terminal, elsewhere as plain text."""
    from rich.text import Text

    def say(text: str, style: str = "") -> None:
        # As Text, because words of the data may look like rich's markup.
        console.print(Text(printable(text), style=style), soft_wrap=True)

    say(f"{found.source['name']}: {headline(found)}")
    for table in tables(found):
        say("")
        say(table.title, "bold")
        if table.note:
            say(table.note, "dim")
        head, *rows = _lines(table)
        say(head, "dim")
        for row in rows:
            say(row)


def write_page(found: Inspection, path: Path) -> None:
    """Write one self-contained page; all text of the data is escaped."""
    template = environment(Path(__file__).parent).get_template("page.html.jinja")
    name = Path(found.source["name"]).name
    page = template.render(name=name, headline=headline(found), tables=list(tables(found)))
    with written_aside(path) as out:
        out.write(page)


def headline(found: Inspection) -> str:
    """Return the most telling numbers in one sentence."""
    return (
        f"{found.turns:,} responses in {found.rows:,} rows, "
        f"{found.lengths['words'].median:,} words in the median; "
        f"{found.repeats:,} said before, {found.refusals['phrases']:,} refusals, "
        f"{found.restatements:,} that restate their instruction, "
        f"{found.with_personal_data:,} with personal data"
    )


def tables(found: Inspection) -> Iterator[Table]:
    """Yield all that was found, the most general first."""
    yield _rows(found)
    yield from _lengths(found.lengths)
    yield from _repeats(found)
    yield _counted(
        "Refusals",
        found.refusals,
        found.turns,
        "phrases: the opening says that it declines; paper-regex: the word 'AI' or 'sorry' is "
        "anywhere in it, which is how the paper selects refusals.",
    )
    yield from _restatements(found)
    yield from _personal_data(found)
    yield _languages(found)
    yield _most("How responses begin", found.openings, found.turns, "The first three words.")
    yield _most("How responses end", found.endings, found.turns, "The last three words.")
    ends = {**found.ends, "seems to stop within a sentence": found.cut}
    yield _counted("The last sign", ends, found.turns)
    yield _counted("Markdown", found.layouts, found.turns)


def _rows(found: Inspection) -> Table:
    used = found.source["columns"].items()
    columns = [f"{kind} {_quoted(name)}" for kind, name in used if name]
    counts = {
        "rows": found.rows,
        **{f"not looked at: {reason}": count for reason, count in found.not_looked_at.items()},
        "responses": found.turns,
        "with an instruction": found.with_instruction,
        "the same as their instruction": found.same_as_instruction,
    }
    rows = [(f"{count:,}", name) for name, count in counts.items()]
    note = f"Columns: {', '.join(columns)}. Each assistant turn is a response."
    if found.columns_not_used:
        note += f" Not used: {_quoted(found.columns_not_used)}."
    return Table("Rows", ("count", ""), rows, 1, note)


def _quoted(names: str | Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in ([names] if isinstance(names, str) else names))


def _lengths(lengths: Mapping[str, Lengths]) -> Iterator[Table]:
    rows = [
        (f"{n.min:,}", f"{n.median:,}", f"{n.mean:,.1f}", f"{n.p95:,}", f"{n.max:,}", unit)
        for unit, n in lengths.items()
    ]
    note = "95 %: nineteen in twenty responses are no longer."
    yield Table("Lengths", ("min", "median", "mean", "95 %", "max", "in"), rows, 5, note)
    unit = [*lengths][-1]  # tokens, where they were counted
    bars = lengths[unit].histogram
    counted = [(f"{bar.count:,}", _range(bar.low, bar.high)) for bar in bars]
    shares = _of_the_longest(bar.count for bar in bars)
    yield Table(f"Lengths in {unit}", ("responses", unit), counted, 2, bars=shares)


def _repeats(found: Inspection) -> Iterator[Table]:
    said = {"said before, word for word": found.repeats}
    note = "Near-duplicates are a step of their own: data.curation.near_duplicates."
    yield _counted("Repeated responses", said, found.turns, note)
    rows = [(f"{one.count:,}", one.where, repr(one.text)) for one in found.repeated.texts]
    if rows:
        head = ("times", "the second at", "response")
        yield Table("Said most often", head, rows, 1, _bound(found.repeated))


def _restatements(found: Inspection) -> Iterator[Table]:
    said = {"give the instruction away in their opening": found.restatements}
    yield _counted("Restatements", said, found.turns)
    rows = [(one.where, repr(one.text)) for one in found.restatement_examples]
    if rows:
        yield Table("The first restatements", ("where", "opening"), rows, 0)


def _personal_data(found: Inspection) -> Iterator[Table]:
    kinds = found.personal_data or {"nothing found": 0}
    note = "E-mail addresses, telephone numbers and keys, told by their form; not shown."
    yield _counted("Personal data", kinds, found.turns, note)
    places = found.personal_data_places
    rows = [(where, kind) for kind in places for where in places[kind]]
    if rows:
        yield Table("Where the first personal data are", ("where", "kind"), rows, 0)


def _languages(found: Inspection) -> Table:
    named = [*found.languages.items()]
    shown = dict(named[:SHOWN])
    if named[SHOWN:]:
        shown["others"] = sum(count for _, count in named[SHOWN:])
    note = "Codes of ISO 639; not told: short texts, lists of names, numbers."
    return _counted("Languages", shown, found.turns, note)


def _most(title: str, top: Top, of: int, note: str) -> Table:
    counts = {repr(one.text): one.count for one in top.texts} or {"none comes twice": 0}
    return _counted(title, counts, of, f"{note}{_bound(top)}")


def _bound(top: Top) -> str:
    forgotten = " There were so many that rare ones were forgotten: counts are lower bounds."
    return "" if top.exact else forgotten


def _counted(title: str, counts: Mapping[str, int], of: int, note: str = "") -> Table:
    rows = [(f"{count:,}", f"{count / of:.1%}", name) for name, count in counts.items()]
    return Table(title, ("responses", "share", ""), rows, 2, note)


def _lines(table: Table) -> Iterator[str]:
    """Yield the head and the rows of a table, its columns aligned."""
    whole = [table.head, *table.rows]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    bars = ["", *("#" * round(BAR_CHARACTERS * share) for share in table.bars)]
    for place, row in enumerate(whole):
        cells = [
            cell.rjust(width) if column < table.numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join([*cells, *bars[place : place + 1]]).rstrip()


def _range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _of_the_longest(counts: Iterable[int]) -> tuple[float, ...]:
    listed = list(counts)
    return tuple(count / max(listed) for count in listed)
