"""From a source to examples and an audit: a chain of steps says what becomes of every turn."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from response_tuning.artifacts import Audit, Dropped, Example, Flagged, write_json, written_aside
from response_tuning.configs import DataConfig
from response_tuning.data import columns, sources
from response_tuning.data.conversations import Turn, UnusableRow
from response_tuning.data.digests import DigestSet
from response_tuning.data.sampling import in_brackets, sample
from response_tuning.data.steps import curation, decontamination
from response_tuning.data.steps.curation import Candidate, Step, each
from response_tuning.data.steps.decontamination import Prompts
from response_tuning.data.steps.near_duplicates import without_near_duplicates
from response_tuning.errors import ConfigError, DataError
from response_tuning.terminal import printable

logger = logging.getLogger(__name__)


def prepare(config: DataConfig, out: Path, prompts: Prompts | None = None) -> Audit:
    """Write the examples of a source to ``out``, with what was dropped, and return the audit.

    Leaves ``examples.jsonl`` and ``dropped.jsonl``, and ``flagged.jsonl`` if anything was flagged,
    in the order of the source with refusals last, and then ``audit.json``, which also says where
    the examples are from. Rows are streamed, except those of a JSON array. Memory holds a digest of
    each example, to find duplicates, and what the step for near-duplicates says.

    Args:
        config: What is read, and what is done about it.
        out: The folder; it may be there.
        prompts: The texts of what ``config.decontamination`` is against, by the names there.

    Raises:
        ConfigError: the settings contradict each other, the source or the prompts.
        DataError: a source is missing or unusable, or has fewer examples than asked for.
    """
    prompts = prompts or {}
    if set(prompts) != set(config.decontamination.against):
        raise ConfigError(
            f"decontamination.against: {', '.join(config.decontamination.against) or 'nothing'}; "
            f"prompts are given of: {', '.join(prompts) or 'nothing'}; give the same"
        )
    parts = {"source": _Part(config, out)}
    if config.mixture.refusals:
        parts["refusals"] = _Refusals(config, out)
    audit = _write(_outcomes(parts.values(), _chain(config, prompts)), out)
    counts = decontamination.counts(prompts, audit.flagged)
    audit = audit.model_copy(update={"contaminated": counts})
    content: dict[str, Any] = {name: part.origin for name, part in parts.items()}
    content["against"] = {
        name: decontamination.prompts_digest(texts) for name, texts in prompts.items()
    }
    content["config"] = config.model_dump(mode="json")
    write_json(out / "audit.json", audit.model_dump() | content)
    return audit


class _Part:
    """A source of examples, and what it alone goes through."""

    size_flag = "--max-examples"

    def __init__(self, config: DataConfig, out: Path) -> None:
        self._name = config.source
        self.source = sources.find(config)
        path = self.source.path
        if path is not None and out.resolve().is_relative_to(path):
            raise ConfigError(
                f"{out} lies in the source {self.source.name}; write to another folder"
            )
        there = sources.columns(self.source)
        self.used = columns.choose(there, config, self.source.name)
        self.not_used = columns.not_used(there, self.used)
        if self.not_used:
            names = columns.listed(self.not_used)
            logger.warning("%s: columns not used: %s", printable(self.source.name), names)
        self.first: list[Step] = []
        self.last: list[Step] = []
        if config.max_examples is not None:
            wanted = (
                f"{self.source.name}: {config.max_examples} examples asked for ({self.size_flag})"
            )
            self.last.append(sample(config.max_examples, config.seed, wanted, out))

    @property
    def origin(self) -> dict[str, Any]:
        """For the audit: where the examples are from."""
        origin = {"name": self._name, **self.source.origin, "columns": self.used.named()}
        return origin | ({"columns_not_used": self.not_used} if self.not_used else {})


class _Refusals(_Part):
    """The refusals that are mixed in: those rows of a source that decline."""

    size_flag = "data.mixture.refusals"

    def __init__(self, config: DataConfig, out: Path) -> None:
        mixture = config.mixture
        settings = mixture.model_dump(exclude={"refusals", "selector"})
        super().__init__(
            DataConfig(**settings, max_examples=mixture.refusals, seed=config.seed), out
        )
        self.first.append(curation.only_refusals(mixture.selector))


def _chain(config: DataConfig, prompts: Prompts) -> list[Step]:
    """Return what all parts go through before their samples are drawn.

    What changes a text comes before what compares texts, and what is cheap before what is dear.
    Near-duplicates are sought last, so that no example is lost to one that goes itself.
    """
    steps = curation.restatements_step(config.curation)
    if not config.keep_duplicates:
        steps.append(_without_duplicates())
    if prompts:
        threshold, remove = config.decontamination.threshold, config.decontamination.remove
        steps.append(decontamination.decontaminate(prompts, threshold, remove=remove))
    steps += curation.steps(config.curation)
    if config.curation.near_duplicates is not None:
        steps.append(without_near_duplicates(config.curation.near_duplicates))
    return steps


def _without_duplicates() -> Step:
    """Drop what was there before, in this part or in an earlier one."""
    seen = DigestSet()

    def look(candidate: Candidate) -> None:
        if not seen.add(_digest(candidate.said)):
            candidate.drop("duplicate")

    return each(look)


def _outcomes(parts: Iterable[_Part], chain: Sequence[Step]) -> Iterator[Candidate]:
    """Yield what becomes of every turn, or of a row that has none; rows are numbered through.

    Raises:
        DataError: nothing came through of one part.
    """
    rows = 0
    for part in parts:
        start, usable, reasons = rows, False, Counter[str]()
        found = _candidates(part, start)
        for step in (*part.first, *chain, *part.last):
            found = step(found)
        for candidate in found:
            rows = candidate.row + 1  # no row is without an outcome
            if candidate.dropped:
                reasons[candidate.dropped] += 1
            else:
                usable = True
            yield candidate
        if not usable:
            raise DataError(
                f"{part.source.name}: none of its {rows - start:,} rows is usable"
                f"{in_brackets(reasons)}"
            )


def _candidates(part: _Part, start: int) -> Iterator[Candidate]:
    """Yield every turn of every row in the source's order, and drop what is no text."""
    for number, row in enumerate(part.source.rows()):
        try:
            turns = sources.turns(part.source, number, row, part.used)
        except UnusableRow as reason:
            yield Candidate(start + number, 0, row.where, Turn(""), str(reason))
            continue
        for place, turn in enumerate(turns):
            candidate = Candidate(start + number, place, row.where, turn)
            if place and part.source.first_turn_only:
                candidate.drop("after the first turn, which alone the paper uses")
            elif turn.unfit:
                candidate.drop(turn.unfit)
            elif not turn.response or turn.response.isspace():
                candidate.drop("empty response")
            elif not _is_text(turn):
                candidate.drop("half a surrogate pair, which is not text")
            else:
                for flag in filter(None, (turn.rendered, turn.left_out)):
                    candidate.flag(flag)
            yield candidate


def _write(outcomes: Iterable[Candidate], out: Path) -> Audit:
    rows = rows_kept = examples = 0
    last_kept = -1
    reasons, flags = Counter[str](), Counter[str]()
    with (
        written_aside(out / "examples.jsonl") as kept,
        written_aside(out / "dropped.jsonl") as dropped,
        written_aside(out / "flagged.jsonl") as flagged,
    ):
        for found in outcomes:
            rows = found.row + 1
            if found.dropped:
                dropped.write(_dropped(found).model_dump_json() + "\n")
                reasons[found.dropped] += 1
            else:
                kept.write(_example(found).model_dump_json() + "\n")
                examples += 1
                rows_kept += found.row != last_kept
                last_kept = found.row
            for what, detail in found.flags:
                flagged.write(_flagged(found, what, detail).model_dump_json() + "\n")
                flags[what] += 1
        (out / "audit.json").unlink(missing_ok=True)  # an old audit never stands by new examples
    if not flags:
        (out / "flagged.jsonl").unlink()
    return Audit(
        rows=rows,
        rows_kept=rows_kept,
        examples=examples,
        dropped=dict(reasons),
        flagged=dict(flags),
    )


def _example(found: Candidate) -> Example:
    return Example(
        row=found.row,
        turn=found.turn,
        response=found.said.response,
        instruction=found.said.instruction,
        earlier=found.said.earlier,
    )


def _dropped(found: Candidate) -> Dropped:
    return Dropped(
        row=found.row,
        turn=found.turn,
        reason=found.dropped,
        where=found.where,
        detail=found.detail,
    )


def _flagged(found: Candidate, what: str, detail: str) -> Flagged:
    return Flagged(row=found.row, turn=found.turn, where=found.where, what=what, detail=detail)


def _parts(turn: Turn) -> list[str]:
    parts = [part for message in turn.earlier for part in (message.role, message.content)]
    return [*parts, turn.instruction or "", turn.response]


def _is_text(turn: Turn) -> bool:
    try:
        "".join(_parts(turn)).encode()
    except UnicodeEncodeError:
        return False
    return True


def _digest(turn: Turn) -> bytes:
    """Return eight bytes that stand for a turn: one collision in 4e7 sets of a million turns."""
    digest = hashlib.blake2b(digest_size=8)
    for part in _parts(turn):
        content = part.encode()
        digest.update(b"%d:" % len(content))
        digest.update(content)
    return digest.digest()
