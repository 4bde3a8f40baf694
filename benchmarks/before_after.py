"""Draw the answers of two variants of a run side by side: the picture at the top of the README.

    python benchmarks/before_after.py RUN prompts --before base --after rt --out docs/real-base

reads ``RUN/<variant>/seed-0/generate/<benchmark>.jsonl`` and writes ``OUT-light.svg`` and
``OUT-dark.svg``. Answers are unedited; what does not fit ends in an ellipsis, and an answer that
the model did not end itself is marked.
"""

import argparse
import json
import textwrap
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

COLUMNS = ((16, 22), (236, 48), (620, 52))
"""Left edge in pixels and width in characters of the prompt, the first and the second answer."""
LINE, PADDING, MOST_LINES = 18, 14, 5


class Theme(NamedTuple):
    """Colours of one of the two pictures."""

    ground: str
    text: str
    faint: str
    rule: str
    bad: str


THEMES = {
    "light": Theme("#ffffff", "#1b1f24", "#59636e", "#d1d9e0", "#b3261e"),
    "dark": Theme("#0d1117", "#e6edf3", "#9198a1", "#3d444d", "#ff8b80"),
}


def answers(run: Path, variant: str, benchmark: str) -> dict[str, dict[str, Any]]:
    """Return the completions of a variant at seed 0, by the id of their prompt."""
    file = run / variant / "seed-0" / "generate" / f"{benchmark}.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    return {row["item_id"]: row for row in rows}


def wrapped(text: str, width: int) -> list[str]:
    """Return the lines of a text, at most ``MOST_LINES``; the last then ends in an ellipsis."""
    lines = [part for line in text.split("\n") for part in textwrap.wrap(line, width) or [""]]
    while lines and not lines[0]:
        lines = lines[1:]
    if len(lines) <= MOST_LINES:
        return lines
    return [*lines[: MOST_LINES - 1], lines[MOST_LINES - 1][: width - 2] + " …"]


def cell(row: dict[str, Any], width: int, theme: Theme) -> list[tuple[str, str]]:
    """Return the lines of an answer with their colours."""
    lines = [(line, theme.text) for line in wrapped(row["response"] or "", width)]
    if row["finish_reason"] != "stop":
        lines.append((f"does not stop ({row['tokens']} tokens)", theme.bad))
    return lines


def drawn(rows: list[list[list[tuple[str, str]]]], heads: list[str], theme: Theme) -> str:
    """Return the picture: a row for each prompt, with its lines for each column."""
    parts, top = [], PADDING + LINE
    for (left, _), head in zip(COLUMNS, heads, strict=True):
        parts.append(text(left, top, head, theme.faint))
    for row in rows:
        top += PADDING
        parts.append(f'<path d="M16 {top}H1064" stroke="{theme.rule}"/>')
        for (left, _), lines in zip(COLUMNS, row, strict=True):
            for number, (line, colour) in enumerate(lines):
                parts.append(text(left, top + PADDING + LINE * (number + 0.6), line, colour))
        top += PADDING + LINE * max(len(lines) for lines in row)
    height = top + PADDING
    font = 'font-family="ui-monospace, \'SF Mono\', Menlo, Consolas, monospace" font-size="13"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1080 {height:g}" {font}>'
        f'<rect width="1080" height="{height:g}" fill="{theme.ground}"/>{"".join(parts)}</svg>\n'
    )


def text(left: float, top: float, line: str, colour: str) -> str:
    """Return one line of text."""
    return (
        f'<text x="{left}" y="{top:g}" fill="{colour}" xml:space="preserve">{escape(line)}</text>'
    )


def main() -> None:
    """Write both pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("benchmark")
    parser.add_argument("--before", default="base")
    parser.add_argument("--after", default="rt")
    parser.add_argument("--heads", nargs=3, default=["prompt", "before", "after"])
    parser.add_argument("--items", nargs="*", help="ids of the prompts; default: all")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    before, after = (
        answers(given.run, name, given.benchmark) for name in (given.before, given.after)
    )
    for name, theme in THEMES.items():
        rows = []
        for item in given.items or before:
            prompt = before[item]["prompt"][-1]["content"]
            asked = [(line, theme.text) for line in wrapped(prompt, COLUMNS[0][1])]
            told = [
                cell(side[item], width, theme)
                for side, (_, width) in zip((before, after), COLUMNS[1:], strict=True)
            ]
            rows.append([asked, *told])
        target = given.out.with_name(f"{given.out.name}-{name}.svg")
        target.write_text(drawn(rows, given.heads, theme), encoding="utf-8")
        print(target)


if __name__ == "__main__":
    main()
