"""A random sample of the candidates that pass the chain, drawn in one pass over the source."""

import heapq
import math
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Self, TextIO

from response_tuning.data.records import Aside, line
from response_tuning.data.steps.curation import Candidate, Step
from response_tuning.errors import DataError

NOT_SAMPLED = "not sampled"


class Waiting:
    """Candidates in an unnamed temporary file, until it is known how many of them are drawn."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(  # noqa: SIM115
            "w+", encoding="utf-8", newline="\n", dir=folder
        )
        self.reasons: Counter[str] = Counter()
        """Why candidates were dropped before they came here."""
        self.usable = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def fill(self, candidates: Iterator[Candidate]) -> None:
        """Put all candidates aside, in their order."""
        for candidate in _put_aside(candidates, self._file):
            if candidate.dropped:
                self.reasons[candidate.dropped] += 1
            else:
                self.usable += 1

    def drawn(self, size: int, seed: int) -> Iterator[Candidate]:
        """Yield all candidates and drop those that are not among ``size`` random ones.

        Every usable candidate draws a number, and the lowest win, so that draws of one seed are
        nested. Memory holds ``size`` numbers.
        """
        winners = heapq.nsmallest(size, islice(_drawn(seed), self.usable))
        threshold = winners[-1] if winners else (0.0, 0)
        self._file.seek(0)
        numbers = _drawn(seed)  # the same numbers again, in the same order
        for candidate in map(Aside, self._file):
            if not candidate.dropped and next(numbers) > threshold:
                candidate.drop(NOT_SAMPLED)
            yield candidate


def sample(size: int, seed: int, wanted: str, folder: Path) -> Step:
    """Keep ``size`` random candidates; samples of one seed are nested. See ``Waiting``.

    Raises:
        DataError: fewer candidates are usable; the message starts with ``wanted``.
    """

    def step(candidates: Iterator[Candidate]) -> Iterator[Candidate]:
        with Waiting(folder) as waiting:
            waiting.fill(candidates)
            if 0 < waiting.usable < size:
                reasons = in_brackets(waiting.reasons)
                raise DataError(f"{wanted}, but only {waiting.usable} are usable{reasons}")
            yield from waiting.drawn(size, seed)

    return step


def shares(usable: Sequence[int], weights: Sequence[float], total: int | None) -> list[int]:
    """Return how many examples to draw from each source, in proportion to the weights.

    Without ``total``, as many as the source allows that is short for its weight. With it, their sum
    is ``total``; a source may then be asked for more than it has.
    """
    if total is None:
        most = min(count / weight for count, weight in zip(usable, weights, strict=True))
        exact = [most * weight for weight in weights]
        return [max(1, math.floor(size + 1e-9)) for size in exact]  # a source of 3 gives 3
    exact = [total * weight / sum(weights) for weight in weights]
    sizes = [math.floor(size) for size in exact]
    # The largest remainders get what is left, the first source first.
    order = sorted(range(len(exact)), key=lambda place: sizes[place] - exact[place])
    for place in order[: total - sum(sizes)]:
        sizes[place] += 1
    return sizes


def in_brackets(reasons: Mapping[str, int]) -> str:
    """Return the counts of the reasons, for the message of an error."""
    counts = ", ".join(f"{reason}: {count:,}" for reason, count in reasons.items())
    return f" ({counts})" if counts else ""


def _drawn(seed: int) -> Iterator[tuple[float, int]]:
    """Yield the number that each candidate draws, and its place to break ties."""
    draw = random.Random(seed).random
    return ((draw(), place) for place in count())


def _put_aside(candidates: Iterator[Candidate], file: TextIO) -> Iterator[Candidate]:
    for candidate in candidates:
        file.write(line(candidate))
        yield candidate
