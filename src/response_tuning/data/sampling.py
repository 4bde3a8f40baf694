"""A random sample of the candidates that pass the chain, drawn in one pass over the source."""

import heapq
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import TextIO

from response_tuning.artifacts import Message
from response_tuning.data.conversations import Turn
from response_tuning.data.steps.curation import Candidate, Step
from response_tuning.errors import DataError


def sample(size: int, seed: int, wanted: str, folder: Path) -> Step:
    """Keep ``size`` random candidates; samples of one seed are nested.

    Every candidate draws a number, and the ``size`` lowest win. The winners are known after the
    last candidate, so all candidates wait in an unnamed temporary file in ``folder``; memory holds
    ``size`` numbers.

    Raises:
        DataError: fewer candidates are usable; the message starts with ``wanted``.
    """

    def step(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile("w+", encoding="ascii", dir=folder) as waiting:
            threshold = highest_winner(_put_aside(candidates, waiting))
            waiting.seek(0)
            numbers = _drawn(seed)  # the same numbers again, in the same order
            for candidate in map(_read, waiting):
                if not candidate.dropped and next(numbers) > threshold:
                    candidate.drop("not sampled")
                yield candidate

    def highest_winner(candidates: Iterator[Candidate]) -> tuple[float, int]:
        reasons: Counter[str] = Counter()
        pairs = zip(_drawn(seed), _usable(candidates, reasons), strict=False)
        winners = heapq.nsmallest(size, (number for number, _ in pairs))
        if 0 < len(winners) < size:
            raise DataError(f"{wanted}, but only {len(winners)} are usable{in_brackets(reasons)}")
        return winners[-1] if winners else (0.0, 0)

    return step


def in_brackets(reasons: Mapping[str, int]) -> str:
    """Return the counts of the reasons, for the message of an error."""
    counts = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.items())
    return f" ({counts})" if counts else ""


def _drawn(seed: int) -> Iterator[tuple[float, int]]:
    """Yield the number that each candidate draws, and its place to break ties."""
    draw = random.Random(seed).random
    return ((draw(), place) for place in count())


def _usable(candidates: Iterator[Candidate], reasons: Counter[str]) -> Iterator[Candidate]:
    for candidate in candidates:
        if candidate.dropped:
            reasons[candidate.dropped] += 1
        else:
            yield candidate


def _put_aside(candidates: Iterator[Candidate], file: TextIO) -> Iterator[Candidate]:
    for candidate in candidates:
        place = (candidate.row, candidate.turn, candidate.where)
        outcome = (candidate.dropped, candidate.detail, candidate.flags)
        answer = Turn("") if candidate.dropped else candidate.answer  # nobody needs its text
        before = [(message.role, message.content) for message in answer.earlier]
        texts = (answer.response, answer.instruction, before, answer.rejected)
        file.write(json.dumps((*place, *outcome, *texts)) + "\n")
        yield candidate


def _read(line: str) -> Candidate:
    row, turn, where, dropped, detail, flags, *texts = json.loads(line)
    response, instruction, before, rejected = texts
    earlier = tuple(Message(role=role, content=content) for role, content in before)
    answer = Turn(response, instruction, earlier, rejected=rejected)
    return Candidate(row, turn, where, answer, dropped, detail, tuple(map(tuple, flags)))
