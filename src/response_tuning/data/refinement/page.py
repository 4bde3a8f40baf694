"""A refinement to look at: originals and rewrites side by side, on a page and in the terminal."""

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from response_tuning.artifacts import read_json, read_jsonl, written_aside
from response_tuning.data.refinement.tally import Refinement
from response_tuning.pages import PAGE_BYTES, environment, script
from response_tuning.rewriting import RefinementOutcome
from response_tuning.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console


MOST_TEXT_CHARACTERS = 20_000
"""Most characters of one text on the page, which says how many more there are."""
SIMILAR = 0.4
"""Least share of common text in two sentences of which single words are marked."""
_SENTENCE = re.compile(
    r"\s*.+?(?:[.!?\u3002\uff01\uff1f][\"')\]\u201d\u2019]*(?=\s|$)|\n|$)|\s+$", re.DOTALL
)
"""A sentence, or a line without a full stop, with the white space before it."""
MOST_DIFF_CHARACTERS = 400
"""Most characters of a diff in the terminal."""


class Change(NamedTuple):
    """A run of words in both texts or in one of them."""

    kind: Literal["same", "removed", "added"]
    text: str


def word_diff(before: str, after: str) -> list[Change]:
    """Return the changes from ``before`` to ``after``; a word keeps the white space behind it."""
    # White space is shown but not compared: a rewrapped text is not a changed one.
    old, new = (re.findall(r"\S+\s*|\s+", text) for text in (before, after))
    matcher = SequenceMatcher(a=[word.strip() for word in old], b=[word.strip() for word in new])
    changes = []
    for kind, i, until_i, j, until_j in matcher.get_opcodes():
        if kind == "equal":
            changes.append(Change("same", "".join(new[j:until_j])))
            continue
        if i < until_i:
            changes.append(Change("removed", "".join(old[i:until_i])))
        if j < until_j:
            changes.append(Change("added", "".join(new[j:until_j])))
    return changes


class SentenceChange(NamedTuple):
    """A run of sentences in both texts, or what became of it in one of them."""

    changed: bool
    words: list[Change]


def sentence_diff(before: str, after: str) -> tuple[list[SentenceChange], list[SentenceChange]]:
    """Return both texts as runs of sentences, with the words that changed in those that changed.

    Sentences that share less than ``SIMILAR`` of their words are replaced as a whole: a list of
    single words would say less.
    """
    old, new = (re.findall(_SENTENCE, text) for text in (before, after))
    matcher = SequenceMatcher(
        a=[" ".join(one.split()) for one in old],
        b=[" ".join(one.split()) for one in new],
        autojunk=False,
    )
    left, right = list[SentenceChange](), list[SentenceChange]()
    for kind, i, until_i, j, until_j in matcher.get_opcodes():
        one, other = "".join(old[i:until_i]), "".join(new[j:until_j])
        if kind == "equal":
            left.append(SentenceChange(False, [Change("same", one)]))
            right.append(SentenceChange(False, [Change("same", other)]))
            continue
        words = word_diff(one, other)
        same = sum(len(change.text) for change in words if change.kind == "same")
        if same < SIMILAR * max(len(one), len(other)):
            words = [Change("removed", one), Change("added", other)]
        if one:
            left.append(SentenceChange(True, [c for c in words if c.kind != "added"]))
        if other:
            right.append(SentenceChange(True, [c for c in words if c.kind != "removed"]))
    return left, right


def write_page(out: Path) -> None:
    """Write ``page.html`` beside the files of a refinement.

    A page larger than ``PAGE_BYTES`` is cut: it has the first examples of each outcome, and
    says how many there are.
    """
    templates = environment(Path(__file__).parent)
    summary = read_json(out / "refinement.json", "outcomes")
    frame = templates.get_template("page.html.jinja")
    names = {
        "summary": summary,
        "out": out,
        "script": script(Path(__file__).with_name("page.js")),
    }
    empty = frame.render(names, articles=[], shown={})
    room = PAGE_BYTES - len(empty.encode()) - 1000  # for the counts of what is shown
    articles: list[tuple[int, int, str]] = []
    shown = dict.fromkeys(summary["outcomes"], 0)
    present = [outcome for outcome, number in summary["outcomes"].items() if number]
    for one in _alternating(out / "refinements.jsonl", present):
        article = templates.get_template("example.html.jinja").render(_article(one))
        room -= len(article.encode())
        if room < 0:
            break
        articles.append((one.row, one.turn, article))
        shown[one.outcome] += 1
    texts = [article for *_, article in sorted(articles)]
    with written_aside(out / "page.html") as page:
        page.write(frame.render(names, articles=texts, shown=shown))


def print_refinement(out: Path, console: "Console") -> None:
    """Print the counts of a refinement, and two short diffs."""
    from rich.text import Text

    for line in _lines(read_json(out / "refinement.json")):
        console.print(line, highlight=False, soft_wrap=True)
    refined = (one for one in read_jsonl(out / "refinements.jsonl", Refinement) if _is_short(one))
    styles = {"same": "", "removed": "red strike", "added": "green"}
    marks = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}
    for one in islice(refined, 2):
        console.print()
        place = f"row {one.row}" + (f" turn {one.turn}" if one.turn else "")
        text = Text().append(f"{place}  ", style="bold")
        if one.half is not None:  # a continuation is no changed second half: both are shown whole
            text.append(printable(one.half)).append(printable(f" {one.refined}"), style="green")
            console.print(text, soft_wrap=True)
            continue
        for change in word_diff(one.original, one.refined or ""):
            words, around = change.text.rstrip(), marks[change.kind]
            # Without colours, marks show what was removed and added.
            shown = words if console.is_terminal else around[0] + words + around[1]
            text.append(printable(shown), style=styles[change.kind])
            text.append(printable(change.text[len(words) :]))
        console.print(text, soft_wrap=True)
    console.print()
    for name in ("examples.jsonl", "page.html"):
        console.print(f"wrote {out / name}", highlight=False, soft_wrap=True)


def _lines(summary: dict[str, Any]) -> Iterator[str]:
    halves = summary["config"]["material"] == "half"
    yield _headline(summary, halves)
    policies = summary["config"]["policies"]
    for outcome, number in summary["outcomes"].items():
        if number:
            policy = policies.get(outcome, "")
            if policy == "retry":
                policy = f"{summary['config']['after_retries']} after retries"
            name = "continued" if halves and outcome == "refined" else outcome
            yield f"{number:>9,}  {name:<11}{policy}".rstrip()
    if summary["words"]:
        words = summary["words"]
        of = ("second halves", "their continuations") if halves else ("refined responses", "after")
        yield (
            f"mean words of {of[0]}: {words['original']:,}{'' if halves else ' before'}, "
            f"{words['refined']:,} {of[1]}; median ratio {words['median_ratio']:.2f}"
        )
    refusals, tokens = summary["refusals"], summary["tokens"]
    if not halves:
        yield f"refusals: {refusals['original']:,} before, {refusals['left']:,} after"
    missing = tokens["replies_not_counted"]
    if missing == summary["replies"]:
        yield f"{summary['replies']:,} replies; the engine does not count tokens"
        return
    least = " at least" if missing else ""  # some replies came without counts
    cost = "" if summary["dollars"] is None else f"; ${summary['dollars']:,.4f}{least}"
    yield (
        f"{summary['replies']:,} replies: {tokens['prompt']:,} tokens in, {tokens['reply']:,} out"
        f"{least}{cost}"
    )


def _headline(summary: dict[str, Any], halves: bool) -> str:
    number, used = summary["responses"], summary["used"]
    if halves:
        return f"{number:,} halves: {used['refined']:,} continued, {used['nothing']:,} dropped"
    return (
        f"{number:,} responses: {used['refined']:,} refined, {used['original']:,} kept unchanged, "
        f"{used['nothing']:,} dropped"
    )


def _is_short(one: Refinement) -> bool:
    length = len(one.original) + len(one.refined or "")
    return one.outcome == "refined" and length <= MOST_DIFF_CHARACTERS


def _alternating(path: Path, outcomes: Sequence[RefinementOutcome]) -> Iterator[Refinement]:
    """Yield the first refinement of each outcome, then the second of each, and so on."""

    def read(outcome: RefinementOutcome) -> Iterator[Refinement]:
        return (one for one in read_jsonl(path, Refinement) if one.outcome == outcome)

    # One reader for each outcome: memory holds no more than a line of each.
    for row in zip_longest(*map(read, outcomes)):
        yield from (one for one in row if one is not None)


def _article(one: Refinement) -> dict[str, Any]:
    texts = (one.original, one.refined or "")
    before, after = (text[:MOST_TEXT_CHARACTERS] for text in texts)
    left, right = [SentenceChange(False, [Change("same", before)])], list[SentenceChange]()
    if after and one.half is None:
        left, right = sentence_diff(before, after)
    elif after:  # a continuation is no changed second half
        right = [SentenceChange(False, [Change("same", after)])]
    return {
        "one": one,
        "half": None if one.half is None else one.half[:MOST_TEXT_CHARACTERS],
        "before": left,
        "after": right,
        "cut": [len(text) - MOST_TEXT_CHARACTERS for text in texts],
    }
