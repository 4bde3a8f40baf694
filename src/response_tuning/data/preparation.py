"""From a source to examples and an audit: a chain of steps decides about every turn."""

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from response_tuning.artifacts import Audit, Dropped, Example, Flagged, write_json, written_aside
from response_tuning.configs import DataConfig
from response_tuning.data import columns, preferences, sources
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
    """Write the examples of a source to ``out``, with an account of the rest; return the audit.

    Writes ``examples.jsonl`` and ``dropped.jsonl``, and ``flagged.jsonl`` if anything is flagged,
    in the order of the source with refusals last. ``audit.json`` comes last and also names the
    source. Rows are streamed, except from a JSON array. Memory holds a digest of each example,
    to find duplicates, and the index of the step for near-duplicates.

    Args:
        config: The source, and the steps that its rows pass.
        out: The folder; it may exist.
        prompts: Name in ``config.decontamination.against`` -> id -> text of a prompt.

    Raises:
        ConfigError: the settings contradict each other, the source or the prompts.
        DataError: a source is missing or unusable, or has fewer examples than requested.
    """
    prompts = prompts or {}
    if set(prompts) != set(config.decontamination.against):
        raise ConfigError(
            f"decontamination.against: {', '.join(config.decontamination.against) or 'nothing'}; "
            f"prompts are given for: {', '.join(prompts) or 'nothing'}; give the same names"
        )
    # Both sources are found and surveyed before a row is written, so that bad settings fail early.
    parts = {"source": _SourcePart(config, out)}
    if config.mixture.refusals:
        parts["refusals"] = _RefusalsPart(config, out)
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


class _SourcePart:
    """A source of examples, and the steps for its rows only."""

    size_flag = "--max-examples"

    def __init__(self, config: DataConfig, out: Path) -> None:
        self._name = config.source
        self.source = sources.find(config)
        # Inside the source, the next run would read the examples as rows.
        path = self.source.path
        if path is not None and out.resolve().is_relative_to(path):
            raise ConfigError(
                f"{out} lies in the source {self.source.name}; write to another folder"
            )
        survey = sources.columns(self.source)
        choose = preferences.choose_pair if config.preferences else columns.choose
        self.used = choose(survey, config, self.source.name)
        self.not_used = columns.not_used(survey, self.used)
        if self.not_used:
            names = columns.listed(self.not_used)
            logger.warning("%s: columns not used: %s", printable(self.source.name), names)
        self.first: list[Step] = []
        self.last: list[Step] = []
        if config.max_examples is not None:
            wanted = (
                f"{self.source.name}: {config.max_examples} examples requested ({self.size_flag})"
            )
            self.last.append(sample(config.max_examples, config.seed, wanted, out))
        if config.preferences is not None and config.preferences.flip:
            self.last.append(preferences.flip(config.preferences.flip, config.seed))

    @property
    def origin(self) -> dict[str, Any]:
        """Origin of the examples, for the audit."""
        origin = {"name": self._name, **self.source.origin, "columns": self.used.named()}
        return origin | ({"columns_not_used": self.not_used} if self.not_used else {})


class _RefusalsPart(_SourcePart):
    """The refusals that are mixed in: the rows of a source that decline."""

    size_flag = "data.mixture.refusals"

    def __init__(self, config: DataConfig, out: Path) -> None:
        mixture = config.mixture
        settings = mixture.model_dump(exclude={"refusals", "selector"})
        super().__init__(
            DataConfig(**settings, max_examples=mixture.refusals, seed=config.seed), out
        )
        self.first.append(curation.only_refusals(mixture.selector))


def _chain(config: DataConfig, prompts: Prompts) -> list[Step]:
    """Return the steps that all parts pass before their samples are drawn.

    Steps that change a text come before steps that compare texts, and expensive steps run late, on
    the fewest candidates. Near-duplicates come last, so that no response is dropped as similar to
    one that a later step drops as well.
    """
    of_answers = preferences.for_both if config.preferences else list
    steps = [*of_answers(curation.restatements_step(config.curation))]
    if not config.keep_duplicates:
        steps.append(_without_duplicates())
    if prompts:
        threshold, remove = config.decontamination.threshold, config.decontamination.remove
        steps.append(decontamination.decontaminate(prompts, threshold, remove=remove))
    steps += of_answers(curation.steps(config.curation))
    if config.curation.near_duplicates is not None:
        steps.append(without_near_duplicates(config.curation.near_duplicates))
    return steps


def _without_duplicates() -> Step:
    """Drop exact duplicates of earlier candidates, also across parts."""
    seen = DigestSet()

    def look(candidate: Candidate) -> None:
        if not seen.add(_digest(candidate.answer)):
            candidate.drop("duplicate")

    return each(look)


def _outcomes(parts: Iterable[_SourcePart], chain: Sequence[Step]) -> Iterator[Candidate]:
    """Yield every candidate after the chain; row numbers continue from part to part.

    Raises:
        DataError: a part has no usable candidate.
    """
    rows = 0
    for part in parts:
        start, usable, reasons = rows, False, Counter[str]()
        # The chain is shared, so that duplicates are found across parts; ``first`` and ``last``
        # are the part's own. Each step wraps the iterator before it: rows stream through all steps.
        candidates = _candidates(part, start)
        for step in (*part.first, *chain, *part.last):
            candidates = step(candidates)
        for candidate in candidates:
            rows = candidate.row + 1  # every row yields at least one candidate
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


def _candidates(part: _SourcePart, start: int) -> Iterator[Candidate]:
    """Yield every turn of every row in the source's order; drop turns that no step could read."""
    for number, row in enumerate(part.source.rows()):
        try:
            turns = sources.turns(part.source, number, row, part.used)
        except UnusableRow as reason:
            yield Candidate(start + number, 0, row.where, Turn(""), str(reason))
            continue
        for place, turn in enumerate(turns):
            # The first reason counts: what the source marks, then what no step could read.
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
    """Write every candidate to the file of its outcome, and count."""
    rows = rows_kept = examples = 0
    last_kept = -1
    reasons, flags = Counter[str](), Counter[str]()
    with (
        written_aside(out / "examples.jsonl") as kept,
        written_aside(out / "dropped.jsonl") as dropped,
        written_aside(out / "flagged.jsonl") as flagged,
    ):
        for candidate in outcomes:
            rows = candidate.row + 1
            if candidate.dropped:
                dropped.write(_dropped(candidate).model_dump_json() + "\n")
                reasons[candidate.dropped] += 1
            else:
                for example in _examples(candidate):
                    kept.write(example.model_dump_json() + "\n")
                    examples += 1
                rows_kept += candidate.row != last_kept
                last_kept = candidate.row
            for what, detail in candidate.flags:
                flagged.write(_flagged(candidate, what, detail).model_dump_json() + "\n")
                flags[what] += 1
        # Before the new files get their names: an old audit must never describe new examples.
        (out / "audit.json").unlink(missing_ok=True)
    if not flags:
        (out / "flagged.jsonl").unlink()
    return Audit(
        rows=rows,
        rows_kept=rows_kept,
        examples=examples,
        dropped=dict(reasons),
        flagged=dict(flags),
    )


def _examples(candidate: Candidate) -> Iterator[Example]:
    """Yield the candidate's response and, if it is a pair, the rejected one after it."""
    answer = candidate.answer
    responses = [
        response for response in (answer.response, answer.rejected) if response is not None
    ]
    for place, response in enumerate(responses):
        yield Example(
            row=candidate.row,
            turn=candidate.turn + place,
            response=response,
            instruction=answer.instruction,
            earlier=answer.earlier,
        )


def _dropped(candidate: Candidate) -> Dropped:
    return Dropped(
        row=candidate.row,
        turn=candidate.turn,
        reason=candidate.dropped,
        where=candidate.where,
        detail=candidate.detail,
    )


def _flagged(candidate: Candidate, what: str, detail: str) -> Flagged:
    return Flagged(
        row=candidate.row,
        turn=candidate.turn,
        where=candidate.where,
        what=what,
        detail=detail,
    )


def _parts(turn: Turn) -> list[str]:
    parts = [part for message in turn.earlier for part in (message.role, message.content)]
    rejected = [] if turn.rejected is None else [turn.rejected]
    return [*parts, turn.instruction or "", turn.response, *rejected]


def _is_text(turn: Turn) -> bool:
    try:
        "".join(_parts(turn)).encode()
    except UnicodeEncodeError:
        return False
    return True


def _digest(turn: Turn) -> bytes:
    """Return a digest of 8 bytes: one collision in 4e7 sets of a million turns."""
    digest = hashlib.blake2b(digest_size=8)
    for part in _parts(turn):
        content = part.encode()
        digest.update(b"%d:" % len(content))  # else ("ab", "c") and ("a", "bc") would be equal
        digest.update(content)
    return digest.digest()
