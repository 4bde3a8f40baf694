"""From a source to examples and an audit: a chain of steps decides about every turn."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from response_tuning.artifacts import Audit, Dropped, Example, Flagged, write_json, written_aside
from response_tuning.configs import DataConfig
from response_tuning.data import preferences, sources
from response_tuning.data.conversations import Turn, UnusableRow
from response_tuning.data.parts import RefusalsPart, SourcePart
from response_tuning.data.sampling import Waiting, in_brackets, shares
from response_tuning.data.steps import cleaning, curation, decontamination
from response_tuning.data.steps.curation import Candidate, Step
from response_tuning.data.steps.decontamination import Prompts
from response_tuning.data.steps.duplicates import parts_of, without_duplicates
from response_tuning.data.steps.near_duplicates import without_near_duplicates
from response_tuning.errors import ConfigError, DataError


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
    alone = None if config.also else config.max_examples  # several sources are drawn together
    parts = [SourcePart(config, out, alone, config.seed)]
    for other in config.also:
        with sources.about_another(other.source):
            parts.append(SourcePart(other, out, None, config.seed))
    mixed = [RefusalsPart(config, out)] if config.mixture.refusals else []
    audit = _write(_Chain(config, prompts).outcomes(parts, mixed, out), out)
    counts = decontamination.counts(prompts, audit.flagged)
    audit = audit.model_copy(update={"contaminated": counts})
    content: dict[str, Any] = {"source": parts[0].origin}
    content |= {"also": [part.origin for part in parts[1:]]} if parts[1:] else {}
    if mixed:
        content["refusals"] = mixed[0].origin
    content["against"] = {
        name: decontamination.prompts_digest(texts) for name, texts in prompts.items()
    }
    content["config"] = config.model_dump(mode="json")
    write_json(out / "audit.json", audit.model_dump() | content)
    return audit


class _Chain:
    """The steps that all parts pass before their samples are drawn.

    Steps that change a text come before steps that compare texts, and expensive steps run late, on
    the fewest candidates. Near-duplicates come last, so that no response is dropped as similar to
    one that a later step drops as well.
    """

    def __init__(self, config: DataConfig, prompts: Prompts) -> None:
        self._config = config
        self._rows = 0
        self._texts: list[Step] = []
        if config.curation.front_matter == "strip":
            self._texts.append(cleaning.front_matter_step())
        of_answers = preferences.for_both if config.preferences else list
        surrounding = cleaning.steps(config.curation) + curation.restatements_step(config.curation)
        steps = [*of_answers(surrounding)]
        if not config.keep_duplicates:
            steps.append(without_duplicates())
        if prompts:
            threshold, remove = config.decontamination.threshold, config.decontamination.remove
            steps.append(decontamination.decontaminate(prompts, threshold, remove=remove))
        steps += of_answers(curation.steps(config.curation))
        if config.curation.near_duplicates is not None:
            steps.append(without_near_duplicates(config.curation.near_duplicates))
        self._steps = steps

    def outcomes(
        self, parts: Sequence[SourcePart], mixed: Sequence[SourcePart], out: Path
    ) -> Iterator[Candidate]:
        """Yield every candidate of every part after the chain; row numbers continue.

        Raises:
            DataError: a part has no usable candidate, or fewer than its share.
        """
        together = len(parts) > 1 and (self._config.weights or self._config.max_examples)
        if together:
            yield from self._drawn(parts, out)
        for part in (*([] if together else parts), *mixed):
            yield from self._passed(part)

    def _drawn(self, parts: Sequence[SourcePart], out: Path) -> Iterator[Candidate]:
        """Draw from all parts in proportion to the weights; without any, to their examples."""
        with ExitStack() as open_files:
            waiting = [open_files.enter_context(Waiting(out)) for _ in parts]
            for part, place in zip(parts, waiting, strict=True):
                place.fill(self._passed(part))
            usable = [place.usable for place in waiting]
            wanted = self._config.max_examples
            sizes = shares(usable, self._config.weights or usable, wanted)
            for part, place, size in zip(parts, waiting, sizes, strict=True):
                if size > place.usable:
                    raise DataError(
                        f"{part.source.name}: {size:,} of {wanted:,} examples are its share, but "
                        f"only {place.usable:,} are usable{in_brackets(place.reasons)}; lower "
                        "--max-examples, or its weight"
                    )
                yield from place.drawn(size, self._config.seed)

    def _passed(self, part: SourcePart) -> Iterator[Candidate]:
        """Yield the candidates of one part after all of its steps."""
        start, usable, reasons = self._rows, False, Counter[str]()
        # The chain is shared, so that duplicates are found across parts; ``first`` and ``last``
        # are the part's own. Each step wraps the iterator before it: rows stream through all steps.
        texts = self._texts if part.source.are_texts else []
        candidates = _candidates(part, start)
        for step in (*texts, *part.first, *self._steps, *part.last):
            candidates = step(candidates)
        for candidate in candidates:
            self._rows = candidate.row + 1  # every row yields at least one candidate
            if candidate.dropped:
                reasons[candidate.dropped] += 1
            else:
                usable = True
            yield candidate
        if not usable:
            raise DataError(
                f"{part.source.name}: none of its {self._rows - start:,} rows is usable"
                f"{in_brackets(reasons)}"
            )


def _candidates(part: SourcePart, start: int) -> Iterator[Candidate]:
    """Yield every turn of every row in the source's order; drop turns that no step could read."""
    for number, row in enumerate(part.source.rows()):
        try:
            turns = sources.turns(part.source, number, row, part.used, part.judging)
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
    """Yield the candidate's response, and what a pair or a judged answer has beside it."""
    answer = candidate.answer
    both = [(answer.instruction, answer.response)]
    if answer.rejected is not None:
        both.append((answer.instruction, answer.rejected))
    if answer.without_reference is not None:
        both.append((answer.without_reference, answer.response))
    for place, (instruction, response) in enumerate(both):
        yield Example(
            row=candidate.row,
            turn=candidate.turn + place,
            response=response,
            instruction=instruction,
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


def _is_text(turn: Turn) -> bool:
    try:
        "".join(parts_of(turn)).encode()
    except UnicodeEncodeError:
        return False
    return True
