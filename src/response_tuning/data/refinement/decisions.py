"""What a person accepts and rejects of a refinement, one rewrite at a time.

The page of a refinement saves the decisions as a file, and ``rtune data decide`` applies it: a
rejected rewrite gives way to its original. The decisions stay beside the refinement, so that the
same refinement made again keeps them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

from response_tuning.artifacts import (
    Example,
    Record,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
    written_aside,
)
from response_tuning.data.refinement.tally import Refinement, Tally, kept_text
from response_tuning.errors import DataError

DECISIONS = "decided.jsonl"


class Decision(Record):
    """Whether a person takes a rewrite."""

    row: int
    turn: int
    key: str
    """Of the reply that has the rewrite: a decision is about no other one."""
    accept: bool


Place: TypeAlias = tuple[int, int, str]
"""Row, turn and key of a rewrite."""


class Decided(NamedTuple):
    """How many rewrites a person decided on."""

    accepted: int
    rejected: int


def decide(out: Path, file: Path) -> Decided:
    """Apply the decisions in ``file`` to the refinement in ``out``, after earlier ones.

    Rewrites ``examples.jsonl``, ``refinements.jsonl`` and the counts in ``refinement.json``.

    Raises:
        DataError: ``out`` holds no refinement, or a decision is about a response without a rewrite.
    """
    summary = read_json(out / "refinement.json", "outcomes")
    if summary["config"]["material"] == "half":
        raise DataError(
            f"{out}: holds continuations; a document's own half would be another writer's. Leave "
            "rows out of examples.jsonl instead"
        )
    new = {_place(one): one.accept for one in read_jsonl(file, Decision)}
    records = [*read_jsonl(out / "refinements.jsonl", Refinement)]
    refined = {_place(one) for one in records if one.outcome == "refined"}
    for line, place in enumerate(new, start=1):
        if place not in refined:
            row, turn, _ = place
            raise DataError(
                f"{file}:{line}: row {row}, turn {turn}: {out} has no such rewrite; save the "
                "decisions again, from its page"
            )
    # Decisions about rewrites that a later refinement replaced are about nothing any more.
    every = {place: ok for place, ok in _earlier(out).items() if place in refined} | new
    rejected = {place for place, accept in every.items() if not accept}
    decided = [_with(one, rejected) for one in records]
    tally = Tally(summary["outcomes"])
    for one in decided:
        tally.add(one)
    # First of all, so that what a crash leaves half done can be done again.
    write_jsonl(
        out / DECISIONS,
        [
            Decision(row=row, turn=turn, key=key, accept=ok)
            for (row, turn, key), ok in sorted(every.items())
        ],
    )
    _write_examples(out, {(one.row, one.turn): kept_text(one) for one in decided})
    write_jsonl(out / "refinements.jsonl", decided)
    write_json(out / "refinement.json", summary | tally.counts())
    return Decided(sum(every.values()), len(rejected))


def rejected_in(out: Path) -> set[Place]:
    """Return the rewrites that a person rejected, of the refinement in ``out``."""
    return {place for place, accept in _earlier(out).items() if not accept}


def _earlier(out: Path) -> dict[Place, bool]:
    path = out / DECISIONS
    every = read_jsonl(path, Decision) if path.exists() else ()
    return {_place(one): one.accept for one in every}


def _place(one: Decision | Refinement) -> Place:
    return one.row, one.turn, one.key


def _with(one: Refinement, rejected: set[Place]) -> Refinement:
    if one.outcome != "refined":
        return one
    used = "original" if _place(one) in rejected else "refined"
    return one.model_copy(update={"used": used})


def _write_examples(out: Path, texts: Mapping[tuple[int, int], str]) -> None:
    with written_aside(out / "examples.jsonl") as kept:
        for example in read_jsonl(out / "examples.jsonl", Example):
            text = texts[example.row, example.turn]
            kept.write(example.model_copy(update={"response": text}).model_dump_json() + "\n")
