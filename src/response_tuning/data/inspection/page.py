"""An inspection as tables, the same in the terminal and on a page."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from response_tuning.artifacts import written_aside
from response_tuning.data.inspection.findings import SEVERITIES, findings
from response_tuning.data.inspection.inspection import Inspection
from response_tuning.data.inspection.tallies import MOST_ENTRIES, UNDETERMINED, Lengths, Top
from response_tuning.pages import environment
from response_tuning.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console


BAR_CHARACTERS = 40
"""Length of the longest bar in the terminal."""


class InspectionTable(NamedTuple):
    """A table whose first columns hold numbers and whose other ones hold text."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: int
    """Number of columns with numbers, from the left."""
    note: str = ""
    bars: tuple[float, ...] = ()
    """Length of the bar of each row, as a share of the longest; empty for a table without bars."""


def print_inspection(inspection: Inspection, console: "Console") -> None:
    """Print the tables: in colour to a terminal, elsewhere as plain text."""
    from rich.text import Text

    def show(text: str, style: str = "") -> None:
        # As Text, because texts of the data may look like rich's markup.
        console.print(Text(printable(text), style=style), soft_wrap=True)

    show(f"{inspection.source['name']}: {headline(inspection)}")
    for table in tables(inspection):
        show("")
        show(table.title, "bold")
        if table.note:
            show(table.note, "dim")
        head, *rows = _lines(table)
        show(head, "dim")
        for row in rows:
            show(row)


def write_page(inspection: Inspection, path: Path) -> None:
    """Write one self-contained page; all texts of the data are escaped."""
    template = environment(Path(__file__).parent).get_template("page.html.jinja")
    name = Path(inspection.source["name"]).name
    found = findings(inspection)
    page = template.render(
        name=name,
        headline=headline(inspection),
        findings={
            severity: (meaning, [one for one in found if one.severity == severity])
            for severity, meaning in SEVERITIES.items()
        },
        tables=list(tables(inspection))[1:],  # the first one has the findings
    )
    with written_aside(path) as out:
        out.write(page)


def headline(inspection: Inspection) -> str:
    """Return the most important numbers in one line."""
    return (
        f"{inspection.turns:,} responses in {inspection.rows:,} rows; "
        f"median {inspection.lengths['words'].median:,} words; "
        f"{inspection.repeats:,} exact duplicates, {inspection.refusals['phrases']:,} refusals, "
        f"{inspection.restatements:,} that restate their instruction, "
        f"{inspection.with_personal_data:,} with personal data"
    )


def tables(inspection: Inspection) -> Iterator[InspectionTable]:
    """Yield all tables, the findings first."""
    yield _findings(inspection)
    yield _rows(inspection)
    yield from _lengths(inspection.lengths)
    yield from _repeats(inspection)
    yield _counted(
        "Refusals",
        inspection.refusals,
        inspection.turns,
        "phrases: the opening declines; paper-regex: the paper's selector, the word 'AI' or "
        "'sorry'.",
    )
    yield from _restatements(inspection)
    yield from _personal_data(inspection)
    yield _languages(inspection)
    yield _most("Openings", inspection.openings, inspection.turns, "The first three words.")
    yield _most("Endings", inspection.endings, inspection.turns, "The last three words.")
    ends = {**inspection.ends, "seems to stop within a sentence": inspection.cut}
    yield _counted("Last character", ends, inspection.turns)
    yield _counted("Markdown", inspection.layouts, inspection.turns)


def _findings(inspection: Inspection) -> InspectionTable:
    rows = [(f"{one.responses:,}", one.severity, one.what, one.fix) for one in findings(inspection)]
    note = "" if rows else "Nothing was found that a flag of 'rtune data' would change."
    return InspectionTable("Findings", ("responses", "severity", "what", "flag"), rows, 1, note)


def _rows(inspection: Inspection) -> InspectionTable:
    used = inspection.source["columns"].items()
    columns = [f"{kind} {_quoted(name)}" for kind, name in used if name]
    counts = {
        "rows": inspection.rows,
        **{f"skipped: {reason}": count for reason, count in inspection.not_looked_at.items()},
        "responses": inspection.turns,
        "with an instruction": inspection.with_instruction,
        "equal to their instruction": inspection.same_as_instruction,
    }
    rows = [(f"{count:,}", name) for name, count in counts.items()]
    note = f"Columns: {', '.join(columns)}. Each assistant turn counts as a response."
    if inspection.columns_not_used:
        note += f" Not used: {_quoted(inspection.columns_not_used)}."
    return InspectionTable("Rows", ("count", ""), rows, 1, note)


def _quoted(names: str | Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in ([names] if isinstance(names, str) else names))


def _lengths(lengths: Mapping[str, Lengths]) -> Iterator[InspectionTable]:
    rows = [
        (f"{n.min:,}", f"{n.median:,}", f"{n.mean:,.1f}", f"{n.p95:,}", f"{n.max:,}", unit)
        for unit, n in lengths.items()
    ]
    note = "p95: 95th percentile."
    yield InspectionTable("Lengths", ("min", "median", "mean", "p95", "max", "unit"), rows, 5, note)
    unit = [*lengths][-1]  # tokens, if they were counted
    bars = lengths[unit].histogram
    counted = [(f"{bar.count:,}", _range(bar.low, bar.high)) for bar in bars]
    shares = _of_the_longest(bar.count for bar in bars)
    yield InspectionTable(f"Lengths in {unit}", ("responses", unit), counted, 2, bars=shares)


def _repeats(inspection: Inspection) -> Iterator[InspectionTable]:
    counts = {"exact duplicates of an earlier response": inspection.repeats}
    note = "To find near-duplicates, prepare with data.curation.near_duplicates."
    yield _counted("Duplicates", counts, inspection.turns, note)
    rows = [(f"{one.count:,}", one.where, repr(one.text)) for one in inspection.repeated.texts]
    if rows:
        head = ("count", "second one at", "response")
        yield InspectionTable("Most frequent responses", head, rows, 1, _bound(inspection.repeated))


def _restatements(inspection: Inspection) -> Iterator[InspectionTable]:
    counts = {"restate the instruction in their opening": inspection.restatements}
    yield _counted("Restatements", counts, inspection.turns)
    rows = [(one.where, repr(one.text)) for one in inspection.restatement_examples]
    if rows:
        yield InspectionTable("First restatements", ("where", "opening"), rows, 0)


def _personal_data(inspection: Inspection) -> Iterator[InspectionTable]:
    kinds = inspection.personal_data or {"none found": 0}
    note = "E-mail addresses, telephone numbers and keys, detected by their form; never shown."
    yield _counted("Personal data", kinds, inspection.turns, note)
    places = inspection.personal_data_places
    rows = [(where, kind) for kind in places for where in places[kind]]
    if rows:
        yield InspectionTable("First personal data", ("where", "kind"), rows, 0)


def _languages(inspection: Inspection) -> InspectionTable:
    named = [
        ("undetermined" if code == UNDETERMINED else code, count)
        for code, count in inspection.languages.items()
    ]
    shown = dict(named[:MOST_ENTRIES])
    if named[MOST_ENTRIES:]:
        shown["others"] = sum(count for _, count in named[MOST_ENTRIES:])
    note = "ISO 639 codes. Short texts, lists of names and numbers are undetermined."
    return _counted("Languages", shown, inspection.turns, note)


def _most(title: str, top: Top, total: int, note: str) -> InspectionTable:
    counts = {repr(one.text): one.count for one in top.texts} or {"none occurs twice": 0}
    return _counted(title, counts, total, f"{note}{_bound(top)}")


def _bound(top: Top) -> str:
    return "" if top.exact else " Rare entries were discarded on the way: counts are lower bounds."


def _counted(title: str, counts: Mapping[str, int], total: int, note: str = "") -> InspectionTable:
    rows = [(f"{count:,}", f"{count / total:.1%}", name) for name, count in counts.items()]
    return InspectionTable(title, ("responses", "share", ""), rows, 2, note)


def _lines(table: InspectionTable) -> Iterator[str]:
    """Yield the head and the rows of a table with aligned columns."""
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
