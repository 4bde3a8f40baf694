"""A random sample of what came through the chain, drawn in one pass over the source."""

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
    """Keep ``size`` candidates; a smaller sample of the same seed lies inside a larger.

    Who wins is known after the last: until then all wait in a nameless file in ``folder``, and
    memory holds ``size`` lots. If nothing came through, nothing is drawn.

    Raises:
        DataError: fewer came through; the message begins with ``wanted`` and counts the reasons.
    """

    def step(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile("w+", encoding="ascii", dir=folder) as waiting:
            last = draw(_put_aside(candidates, waiting))
            waiting.seek(0)
            lots = _lots(seed)
            for candidate in map(_read, waiting):
                if not candidate.dropped and next(lots) > last:
                    candidate.drop("not sampled")
                yield candidate

    def draw(candidates: Iterator[Candidate]) -> tuple[float, int]:
        """Return the last lot that wins."""
        reasons: Counter[str] = Counter()
        lots = zip(_lots(seed), _through(candidates, reasons), strict=False)
        winners = heapq.nsmallest(size, (lot for lot, _ in lots))
        if 0 < len(winners) < size:
            raise DataError(f"{wanted}, but only {len(winners)} are usable{in_brackets(reasons)}")
        return winners[-1] if winners else (0.0, 0)

    return step


def in_brackets(reasons: Mapping[str, int]) -> str:
    """Return the counts of the reasons for an error's message."""
    counts = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.items())
    return f" ({counts})" if counts else ""


def _lots(seed: int) -> Iterator[tuple[float, int]]:
    """Yield what each candidate draws, with its place, which settles a tie."""
    draw = random.Random(seed).random
    return ((draw(), place) for place in count())


def _through(candidates: Iterator[Candidate], reasons: Counter[str]) -> Iterator[Candidate]:
    for candidate in candidates:
        if candidate.dropped:
            reasons[candidate.dropped] += 1
        else:
            yield candidate


def _put_aside(candidates: Iterator[Candidate], file: TextIO) -> Iterator[Candidate]:
    for found in candidates:
        about = (found.row, found.turn, found.where, found.dropped, found.detail, found.flags)
        response, instruction, earlier, *_ = found.said if not found.dropped else Turn("")
        before = [(message.role, message.content) for message in earlier]
        file.write(json.dumps((about, response, instruction, before)) + "\n")
        yield found


def _read(line: str) -> Candidate:
    about, response, instruction, before = json.loads(line)
    row, turn, where, dropped, detail, flags = about
    earlier = tuple(Message(role=role, content=content) for role, content in before)
    said = Turn(response, instruction, earlier)
    return Candidate(row, turn, where, said, dropped, detail, tuple(map(tuple, flags)))
