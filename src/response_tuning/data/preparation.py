"""From a source to examples and an audit: empty and repeated turns go, a sample is drawn."""

import hashlib
import heapq
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from response_tuning.artifacts import Audit, Dropped, Example, write_json, written_aside
from response_tuning.configs import DataConfig
from response_tuning.data import columns, sources
from response_tuning.data.columns import Columns
from response_tuning.data.conversations import Turn, UnusableRow
from response_tuning.data.readers import Row
from response_tuning.data.sources import Source
from response_tuning.errors import ConfigError, DataError


def prepare(config: DataConfig, out: Path) -> Audit:
    """Write the examples of a source to ``out``, with what was dropped, and return the audit.

    Leaves ``examples.jsonl`` and ``dropped.jsonl``, both in the order of the source, and then
    ``audit.json``, which also says where the examples are from. Memory holds a digest of each
    example, to find duplicates, and never the rows, except those of a JSON array.

    Raises:
        ConfigError: the settings contradict each other.
        DataError: the source is missing or unusable, or has fewer examples than asked for.
    """
    main = _Sampled(config, out, config.max_examples, "--max-examples")
    content: dict[str, Any] = {"source": main.origin}
    outcomes = main.outcomes()
    if config.refusals:
        refusals = _Sampled(_of_refusals(config), out, config.refusals, "data.refusals")
        content["refusals"] = refusals.origin
        outcomes = _joined(outcomes, refusals.outcomes())
    audit = _write(outcomes, out, main.source.name)
    content = {**audit.model_dump(), **content, "config": config.model_dump(mode="json")}
    write_json(out / "audit.json", content)
    return audit


class _Sampled:
    """A source, and which of its examples are used."""

    def __init__(self, config: DataConfig, out: Path, size: int | None, asked_by: str) -> None:
        self._config = config
        self.source = sources.find(config)
        folder = self.source.origin.get("path")
        if folder and out.resolve().is_relative_to(folder):
            raise ConfigError(
                f"{out} lies in the source {self.source.name}; write to another folder"
            )
        self._used = columns.choose(_first_fields(self.source), config, self.source.name)
        self._sample = None
        if size is not None:
            self._sample = _draw(self.outcomes(), size, config.seed, self.source.name, asked_by)

    @property
    def origin(self) -> dict[str, Any]:
        """For the audit: where the examples are from."""
        used = self._used._asdict()
        return {"name": self._config.source, **self.source.origin, "columns": used}

    def outcomes(self) -> Iterator[Example | Dropped]:
        """Yield what becomes of every row."""
        return _outcomes(self.source, self._used, _Sieve(self.source, self._config, self._sample))


def _of_refusals(config: DataConfig) -> DataConfig:
    return DataConfig(
        source=config.refusal_source, keep_duplicates=config.keep_duplicates, seed=config.seed
    )


def _joined(
    first: Iterator[Example | Dropped], second: Iterator[Example | Dropped]
) -> Iterator[Example | Dropped]:
    """Yield both, with the rows of the second numbered on from those of the first."""
    rows, usable = 0, False
    for outcome in first:
        rows = outcome.row + 1
        usable = usable or isinstance(outcome, Example)
        yield outcome
    for outcome in second if usable else ():  # refusals alone are no data
        yield outcome.model_copy(update={"row": rows + outcome.row})


class _Sieve:
    """Says, turn by turn in the order of the source, why a turn is not used."""

    def __init__(
        self, source: Source, config: DataConfig, sample: frozenset[int] | None = None
    ) -> None:
        self._first_turn_only = source.first_turn_only
        self._sample = sample
        self._seen: set[bytes] | None = None if config.keep_duplicates else set()
        self._usable = 0

    def reason(self, number: int, turn: Turn) -> str | None:
        """Return why turn ``number`` of its row is dropped; None if it is an example."""
        if number and self._first_turn_only:
            return "after the first turn, which alone the paper uses"
        if not turn.response or turn.response.isspace():
            return "empty response"
        try:
            key = _key(turn)
        except UnicodeEncodeError:
            return "half a surrogate pair, which is not text"
        if self._seen is not None:
            if key in self._seen:
                return "duplicate"
            self._seen.add(key)
        self._usable += 1
        if self._sample is not None and self._usable - 1 not in self._sample:
            return "not sampled"
        return None


def _outcomes(source: Source, used: Columns, sieve: _Sieve) -> Iterator[Example | Dropped]:
    """Yield what becomes of every row, or of every turn of a row, in the source's order."""
    for number, row in enumerate(source.rows()):
        try:
            turns = _turns(number, row, source, used)
        except UnusableRow as reason:
            yield Dropped(row=number, reason=str(reason), where=row.where)
            continue
        for place, turn in enumerate(turns):
            dropped = sieve.reason(place, turn)
            if dropped is not None:
                yield Dropped(row=number, turn=place, reason=dropped, where=row.where)
            else:  # every value was checked when it was read
                yield Example.model_construct(row=number, turn=place, **turn._asdict())


def _turns(number: int, row: Row, source: Source, used: Columns) -> list[Turn]:
    if row.fault:
        raise UnusableRow(row.fault)
    if source.first_rows is not None and number >= source.first_rows:
        raise UnusableRow(f"beyond the first {source.first_rows:,} rows, which the paper uses")
    return columns.row_turns(row.fields, used)


def _draw(
    outcomes: Iterable[Example | Dropped], size: int, seed: int, name: str, asked_by: str
) -> frozenset[int]:
    """Draw positions among the examples; a smaller draw of the same seed lies inside a larger."""
    lots = random.Random(seed)
    examples = (outcome for outcome in outcomes if isinstance(outcome, Example))
    drawn = heapq.nsmallest(size, ((lots.random(), place) for place, _ in enumerate(examples)))
    if 0 < len(drawn) < size:
        raise DataError(
            f"{name}: {size} examples asked for ({asked_by}), but only {len(drawn)} are usable"
        )
    return frozenset(place for _, place in drawn)


def _write(outcomes: Iterable[Example | Dropped], out: Path, name: str) -> Audit:
    rows = rows_kept = examples = 0
    last_kept = -1
    reasons: Counter[str] = Counter()
    with (
        written_aside(out / "examples.jsonl") as kept,
        written_aside(out / "dropped.jsonl") as dropped,
    ):
        for outcome in outcomes:
            rows = outcome.row + 1  # no row is without an outcome
            if isinstance(outcome, Example):
                kept.write(outcome.model_dump_json() + "\n")
                examples += 1
                rows_kept += outcome.row != last_kept
                last_kept = outcome.row
            else:
                dropped.write(outcome.model_dump_json() + "\n")
                reasons[outcome.reason] += 1
        if not examples:
            counts = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.items())
            raise DataError(f"{name}: none of its {rows:,} rows is usable ({counts})")
        (out / "audit.json").unlink(missing_ok=True)  # an old audit never stands by new examples
    return Audit(rows=rows, rows_kept=rows_kept, examples=examples, dropped=dict(reasons))


def _first_fields(source: Source) -> dict[str, object]:
    for row in source.rows():
        if not row.fault:
            return row.fields
    raise DataError(f"{source.name}: it has no rows")


def _key(turn: Turn) -> bytes:
    """Return eight bytes that stand for a turn: one collision in 4e7 sets of a million turns."""
    digest = hashlib.blake2b(digest_size=8)
    parts = [part for message in turn.earlier for part in (message.role, message.content)]
    for part in (*parts, turn.instruction or "", turn.response):
        content = part.encode()
        digest.update(b"%d:" % len(content))
        digest.update(content)
    return digest.digest()
