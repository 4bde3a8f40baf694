"""Shows what a run trains on: which text carries loss, how long rows are, what was dropped."""

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import merge
from itertools import groupby, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from response_tuning.artifacts import Dropped, read_json, read_jsonl
from response_tuning.finetune.objectives import IGNORED
from response_tuning.finetune.rows import EncodedRow
from response_tuning.templates import Chat

if TYPE_CHECKING:
    from rich.console import Console


LENGTH_BINS = 12
"""Bars of the length histogram."""
LONG_CHARACTERS = 1000
"""A longer text is folded on a phone."""


class AuditEntry(NamedTuple):
    """One assistant turn, or a whole row without any."""

    row: int
    turn: int
    status: str
    input_ids: list[int]
    labels: list[int]
    where: str = ""
    remarks: tuple[str, ...] = ()
    weights: list[float] | None = None
    """Weights of the tokens in the loss; None if each labelled token weighs 1."""
    hidden: tuple[range, ...] = ()
    """Tokens that no other token attends to."""

    @property
    def trained(self) -> bool:
        """Whether the model is trained on it."""
        return bool(self.input_ids)


class Stretch(NamedTuple):
    """Consecutive tokens of one weight in the loss, all hidden or all to be seen."""

    text: str
    weight: float
    """0 where the tokens carry no loss."""
    tokens: list[str]
    hidden: bool = False

    @property
    def supervised(self) -> bool:
        """Whether the tokens carry loss."""
        return self.weight > 0

    @property
    def label(self) -> str:
        """What the terminal prints in front of the text."""
        if self.hidden:
            return "hidden "
        if self.weight in (0, 1):
            return "loss   " if self.supervised else "no loss"
        return f"loss x{self.weight:g}"


class Overview(NamedTuple):
    """Everything that ``rtune show`` prints."""

    shown: list[AuditEntry]
    statuses: Counter[str]
    remarks: Counter[str]
    lengths: "array[int]"
    """Tokens of each row, hidden ones included."""
    supervised: int
    hidden: int
    """Tokens that are there and cannot be seen: the model does not compute them."""
    source_rows: int

    @property
    def tokens(self) -> int:
        """Tokens that the model computes."""
        return sum(self.lengths) - self.hidden


def entries(rows: Iterable[EncodedRow], data: Path) -> Iterator[AuditEntry]:
    """Merge encoded rows with what the data stage dropped, in the order of the file."""
    encoded = (
        AuditEntry(
            row.example.row,
            row.example.turn,
            row.status,
            row.input_ids,
            row.labels,
            remarks=row.remarks,
            weights=row.weights,
            hidden=row.hidden,
        )
        for row in rows
    )
    dropped = (
        AuditEntry(drop.row, drop.turn, drop.reason, [], [], drop.where)
        for drop in read_jsonl(data / "dropped.jsonl", Dropped)
    )
    # Both streams are in the order of the file, so merging keeps neither in memory.
    return merge(encoded, dropped, key=lambda entry: (entry.row, entry.turn))


def overview(all_entries: Iterable[AuditEntry], data: Path, show: int) -> Overview:
    """Count all entries and keep ``show`` of them, preferring entries that are trained on."""
    statuses, remarks, lengths = Counter[str](), Counter[str](), array("i")
    supervised = hidden = 0
    # Only `show` entries of either kind are in memory, however many there are.
    first: dict[bool, list[AuditEntry]] = {True: [], False: []}
    for entry in all_entries:
        if len(first[entry.trained]) < show:
            first[entry.trained].append(entry)
        statuses[entry.status] += 1
        remarks.update(entry.remarks)
        if entry.trained:
            lengths.append(len(entry.input_ids))
            supervised += _supervised(entry)
            hidden += sum(map(len, entry.hidden))
    shown = sorted((first[True] + first[False])[:show], key=lambda entry: (entry.row, entry.turn))
    rows = read_json(data / "audit.json", "rows")["rows"]
    return Overview(shown, statuses, remarks, lengths, supervised, hidden, rows)


def _supervised(entry: AuditEntry) -> int:
    return len(entry.labels) - entry.labels.count(IGNORED)


def as_jsonl(all_entries: Iterable[AuditEntry]) -> Iterator[str]:
    """Yield one JSON object for each row of the file, in file order.

    A row that holds several assistant turns has its first turn at the top and the others, in
    order, under ``more``. A turn has ``weights`` where labelled tokens weigh other than 1, and
    ``hidden``, bounds of tokens, where text is hidden.
    """
    for index, turns in groupby(all_entries, key=lambda entry: entry.row):
        first, *others = map(_as_object, turns)
        yield json.dumps({"index": index, **first, **({"more": others} if others else {})})


def _as_object(turn: AuditEntry) -> dict[str, Any]:
    shown = {"status": turn.status, "input_ids": turn.input_ids, "labels": turn.labels}
    weights = {} if turn.weights is None else {"weights": turn.weights}
    hidden = {"hidden": [(each.start, each.stop) for each in turn.hidden]} if turn.hidden else {}
    return {**shown, **weights, **hidden}


def stretches(entry: AuditEntry, chat: Chat) -> Iterator[Stretch]:
    """Split an entry where its weight in the loss changes, or what is hidden begins or ends.

    The texts join up to the whole text.
    """
    whole = chat.decode(entry.input_ids)
    start, read = 0, 0
    weights = entry.weights or [float(label != IGNORED) for label in entry.labels]
    hidden = [any(place in each for each in entry.hidden) for place in range(len(weights))]
    for (weight, is_hidden), tokens_of_it in groupby(zip(weights, hidden, strict=True)):
        end = start + len(list(tokens_of_it))
        # Decode from the start of the row: alone, a stretch would lose its first space in
        # SentencePiece. Compare with the whole text: bytes of a character that was cut in two can
        # change the characters before them.
        pairs = zip(chat.decode(entry.input_ids[:end]), whole, strict=False)
        until = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        tokens = chat.tokenizer.convert_ids_to_tokens(entry.input_ids[start:end])
        yield Stretch(whole[read:until], weight, list(tokens), is_hidden)
        start, read = end, until


class HistogramBar(NamedTuple):
    """One bar of the histogram: rows of ``low`` to ``high`` tokens."""

    low: int
    high: int
    rows: int
    share: float
    """Its height relative to the tallest bar."""


def histogram(lengths: Sequence[int]) -> list[HistogramBar]:
    """Count lengths in equal bins from 1 to the longest."""
    if not lengths:
        return []
    width = -(-max(lengths) // LENGTH_BINS)
    counts = Counter((length - 1) // width for length in lengths)
    tallest = max(counts.values())
    return [
        HistogramBar(place * width + 1, (place + 1) * width, counts[place], counts[place] / tallest)
        for place in range(max(counts) + 1)
    ]


def print_overview(view: Overview, chat: Chat, console: "Console") -> None:
    """Print to a terminal in colour, elsewhere as plain text."""
    from rich.text import Text

    for entry in view.shown:
        place = f"row {entry.row}" + (f" turn {entry.turn}" if entry.turn else "")
        # As Text, because the data may look like rich's markup.
        head = Text(
            f"{place}: {entry.status}, {len(entry.input_ids)} tokens, "
            f"{_supervised(entry)} carry loss" + (f" ({entry.where})" if entry.where else ""),
            style="bold",
        )
        console.print(head, soft_wrap=True)
        for stretch in stretches(entry, chat):
            style = "green" if stretch.supervised else "dim strike" if stretch.hidden else "dim"
            text = _visible(stretch.text) if console.is_terminal else repr(stretch.text)
            console.print(Text(f"  {stretch.label} ").append(text, style=style), soft_wrap=True)
    console.print()
    for line in audit_lines(view):
        console.print(Text(line), soft_wrap=True)
    console.print()
    bars = histogram(view.lengths)
    if bars:
        console.print(f"{'tokens':^13} {'rows':>7}", highlight=False)
    for bar in bars:
        console.print(
            f"{bar.low:>6}-{bar.high:<6} {bar.rows:>7,}  {'#' * round(40 * bar.share)}",
            highlight=False,
            soft_wrap=True,
        )


def _visible(text: str) -> str:
    """Spell out characters that a terminal would obey or hide."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def audit_lines(view: Overview) -> list[str]:
    """Return the audit: one line per outcome."""
    total = sum(view.statuses.values())
    lines = [f"{view.source_rows:,} rows, {total:,} rows or turns accounted for:"]
    lines += [f"  {count:>9,}  {status}" for status, count in view.statuses.most_common()]
    lines += ["of the responses that are trained on:"] if view.remarks else []
    lines += [f"  {count:>9,}  {remark}" for remark, count in view.remarks.most_common()]
    share = view.supervised / view.tokens if view.tokens else 0.0
    hidden = f"; {view.hidden:,} more are hidden from attention" if view.hidden else ""
    lines.append(f"{view.tokens:,} tokens, {view.supervised:,} carry loss ({share:.1%}){hidden}")
    return lines


def _classes(stretch: Stretch) -> str:
    if stretch.hidden:
        return "hidden"
    if stretch.weight in (0, 1):
        return "loss" if stretch.supervised else "free"
    return "part"


def _no_kinds(text: str) -> Sequence[str]:
    return ()


def write_html(
    view: Overview,
    chat: Chat,
    path: Path,
    title: str,
    personal: Callable[[str], Sequence[str]] = _no_kinds,
) -> None:
    """Write one self-contained page; all text from the data is escaped.

    ``personal`` returns the kinds of personal data in a text, which the page warns of.
    """
    from response_tuning.artifacts import written_aside
    from response_tuning.pages import environment, script

    template = environment(Path(__file__).parent).get_template("show.html.jinja")
    examples = [_shown(entry, list(stretches(entry, chat)), personal) for entry in view.shown]
    page = template.render(
        title=title,
        view=view,
        examples=examples,
        bars=histogram(view.lengths),
        tokens=view.tokens,
        weighted=any(entry.weights for entry in view.shown),
        classes=_classes,
        personal=[example for example in examples if example["personal"]],
        script=script(),
    )
    with written_aside(path) as out:
        out.write(page)


def _shown(
    entry: AuditEntry, parts: list[Stretch], personal: Callable[[str], Sequence[str]]
) -> dict[str, Any]:
    text = "".join(part.text for part in parts)
    return {
        "entry": entry,
        "stretches": parts,
        "personal": personal(text),
        "is_long": len(text) > LONG_CHARACTERS,
    }
