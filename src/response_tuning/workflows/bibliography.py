"""``references.bib`` beside a report: what was run, for the paper that cites it.

The entries are data (``published/references.bib``); each says in its keywords what it is about.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from response_tuning.artifacts import package_versions, written_aside
from response_tuning.workflows.experiment import Cell

ENTRIES = Path(__file__).parents[1] / "published" / "references.bib"
ALWAYS = {"paper", "software"}
MADE_HERE = ("miniature", "prompts")
"""Names that begin with one of these have no paper: this package, or its user, made them."""
METHODS = ("roles", "continuation")
"""Sections of ``data`` that are somebody's method."""


def write_references(cells: Sequence[Cell], out: Path) -> None:
    """Write the entries of all that the cells use; a comment lists what has no entry."""
    used = {name for cell in cells for name in _used(cell)}
    found = [(about, entry) for about, entry in _entries() if about & (used | ALWAYS)]
    known = {name for about, _ in found for name in about}
    cited = {name for cell in cells for name in _cited(cell)}
    missing = sorted(name for name in cited - known if not name.startswith(MADE_HERE))
    version = package_versions()["response-tuning"]
    with written_aside(out) as file:
        file.write(f"% Made by response-tuning {version}.\n")
        for name in missing:
            file.write(f"% No entry: {name}\n")
        for _, entry in found:
            file.write(f"\n{entry.replace('{VERSION}', f'{{{version}}}')}\n")


def _used(cell: Cell) -> Iterator[str]:
    """Yield every name of a cell that an entry may be about."""
    yield from cell.benchmarks
    yield cell.generate.template or cell.finetune.template
    if cell.generate.rules is not None:
        yield "rules"
    if cell.data is not None:
        yield from _data(cell)
        yield from (f"data.{key}" for key in METHODS if getattr(cell.data, key) is not None)
        yield cell.finetune.objective


def _cited(cell: Cell) -> Iterator[str]:
    """Yield the names of a cell that a paper would cite: its benchmarks, its data and its base."""
    yield from (*cell.benchmarks, *_data(cell), cell.finetune.base_model)


def _data(cell: Cell) -> Iterator[str]:
    if cell.data is not None:
        yield cell.data.source
        if cell.data.mixture.refusals:
            yield cell.data.mixture.source


def _entries() -> Iterator[tuple[frozenset[str], str]]:
    """Yield the keywords of each entry, and the entry without them."""
    text = ENTRIES.read_text(encoding="utf-8")
    for entry in re.findall(r"^@.*?^}", text, re.DOTALL | re.MULTILINE):
        field = re.search(r",\n  keywords = \{(.*?)\}", entry)
        assert field, entry
        yield frozenset(field[1].split(", ")), entry.replace(field[0], "")
