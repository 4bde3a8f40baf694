"""From a source to examples and an audit: a chain of steps decides about every turn."""

import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from response_tuning.artifacts import Audit, Dropped, Flagged, digest, write_json, written_aside
from response_tuning.configs import DataConfig
from response_tuning.data import chain, piecewise, sources
from response_tuning.data.parts import Places, RefusalsPart, SourcePart
from response_tuning.data.records import late_drops, lines
from response_tuning.data.sampling import NOT_SAMPLED, Waiting, in_brackets, shares
from response_tuning.data.single_tasks import EXAMPLES
from response_tuning.data.steps import curation, decontamination
from response_tuning.data.steps.curation import Candidate
from response_tuning.data.steps.decontamination import Prompts
from response_tuning.data.steps.duplicates import without_duplicates
from response_tuning.data.steps.near_duplicates import without_near_duplicates
from response_tuning.data.workers import Apply, here, workers
from response_tuning.errors import ConfigError, DataError

logger = logging.getLogger(__name__)


def prepare(
    config: DataConfig, out: Path, prompts: Prompts | None = None, processes: int = 1
) -> Audit:
    """Write the examples of a source to ``out``, with an account of the rest; return the audit.

    Writes ``examples.jsonl`` and ``dropped.jsonl``, and ``flagged.jsonl`` if anything is flagged,
    in the order of the source with refusals last. ``audit.json`` comes last and also names the
    source. Rows are streamed, except from a JSON array. Memory holds a digest of each example,
    to find duplicates, and the index of the step for near-duplicates. The pieces of a large source
    wait in ``out``, where the same call finds them after a kill.

    Args:
        config: The source, and the steps that its rows pass.
        out: The folder; it may exist.
        prompts: Name in ``config.decontamination.against`` -> id -> text of a prompt.
        processes: How many prepare the pieces of a large source. No byte depends on it.

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
    against = {name: decontamination.prompts_digest(texts) for name, texts in prompts.items()}
    job = piecewise.Job(digest(config.model_dump_json(), *against.values()), config, prompts)
    for folder in (out / piecewise.FOLDER).glob("*"):
        if folder.name != job.key:  # of other settings
            shutil.rmtree(folder)
    try:
        with workers(processes, partial(piecewise.steps_of, job)) as apply:
            return _prepare(job, out, against, apply)
    finally:
        piecewise.steps_of.cache_clear()  # a model may be trained next, and needs the memory


def _prepare(job: piecewise.Job, out: Path, against: dict[str, str], apply: Apply) -> Audit:
    config, work = job.config, out / piecewise.FOLDER / job.key
    # Both sources are found and surveyed before a row is written, so that bad settings fail early.
    alone = None if config.also else config.max_examples  # several sources are drawn together
    parts = [SourcePart(config, alone, config.seed, Places(out, work / "0", apply))]
    for number, other in enumerate(config.also, start=1):
        with sources.about_another(other.source):
            where = Places(out, work / str(number), apply)
            parts.append(SourcePart(other, None, config.seed, where))
    mixed = []
    if config.mixture.refusals:
        mixed.append(RefusalsPart(config, Places(out, work / "refusals", apply)))
    if apply is here or not all(part.folder for part in (*parts, *mixed)):
        piecewise.steps_of(job)  # a tokenizer that cannot be loaded ends the command here
    audit = _write(_Chain(job, apply).outcomes(parts, mixed, out), out)
    counts = decontamination.counts(job.prompts, audit.flagged)
    audit = audit.model_copy(update={"contaminated": counts})
    content: dict[str, Any] = {"source": parts[0].origin}
    content |= {"also": [part.origin for part in parts[1:]]} if parts[1:] else {}
    if mixed:
        content["refusals"] = mixed[0].origin
    content["against"] = against
    content["config"] = config.model_dump(mode="json")
    _compare_with_published(config, audit)
    write_json(out / "audit.json", audit.model_dump() | content)
    shutil.rmtree(out / piecewise.FOLDER, ignore_errors=True)
    return audit


def _compare_with_published(config: DataConfig, audit: Audit) -> None:
    """Warn if a dataset of one task has other rows than the published one."""
    published = EXAMPLES.get(config.source)
    found = audit.examples + audit.dropped.get(NOT_SAMPLED, 0)
    if published is not None and not config.also and found != published:
        logger.warning(
            "%s: %s usable examples, where Hewitt et al. have %s; name the file of the training "
            "split alone with --path, in its order",
            config.source, f"{found:,}", f"{published:,}",
        )  # fmt: skip


class _Chain:
    """The steps that all parts pass before their samples are drawn; see ``chain``."""

    def __init__(self, job: piecewise.Job, apply: Apply) -> None:
        config = self._config = job.config
        self._job = job
        self._apply = apply
        self._rows = 0
        # Shared, so that duplicates are found across parts.
        self._duplicates = [] if config.keep_duplicates else [without_duplicates()]
        threshold = config.curation.near_duplicates
        self._near = [] if threshold is None else [without_near_duplicates(threshold)]

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
        candidates = self._in_pieces(part) if part.folder else self._at_once(part)
        for step in (*self._near, *part.last):
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

    def _at_once(self, part: SourcePart) -> Iterator[Candidate]:
        """Return the candidates of a small source after all steps but the last ones."""
        steps = piecewise.steps_of(self._job)
        rows = part.source.rows()
        found = chain.candidates(part.source, part.used, rows, 0, self._rows, part.judging)
        first = steps.texts if part.source.are_texts else []
        chosen = [curation.only_refusals(part.selector)] if part.selector else []
        chosen += [*steps.before, *self._duplicates, *steps.after]
        return chain.passed(found, [*first, *chosen])

    def _in_pieces(self, part: SourcePart) -> Iterator[Candidate]:
        """Return the same candidates of a source that is read in pieces."""
        assert part.folder is not None
        task = piecewise.Task(
            self._job,
            part.source.without_rows(),
            part.used,
            part.selector,
            self._rows,
            part.judging,
        )
        pieces = part.source.pieces
        found = piecewise.candidates(task, pieces, part.rows, part.folder, self._apply)
        return chain.passed(found, [*self._duplicates, late_drops])


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
                for example in lines(candidate):
                    kept.write(example + "\n")
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
