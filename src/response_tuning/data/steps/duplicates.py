"""Exact duplicates: the same response with the same context."""

import hashlib

from response_tuning.data.conversations import Turn
from response_tuning.data.digests import DigestSet
from response_tuning.data.steps.curation import Candidate, Step, each


def without_duplicates() -> Step:
    """Drop exact duplicates of earlier candidates, also across parts."""
    seen = DigestSet()

    def look(candidate: Candidate) -> None:
        if not seen.add(candidate.digest or _digest(candidate.answer)):
            candidate.drop("duplicate")

    return each(look)


def with_digests() -> Step:
    """Compute the digests that ``without_duplicates`` compares."""

    def look(candidate: Candidate) -> None:
        candidate.digest = _digest(candidate.answer)

    return each(look)


def parts_of(turn: Turn) -> list[str]:
    """Return every text of a turn, with the roles of its context."""
    parts = [part for message in turn.earlier for part in (message.role, message.content)]
    rejected = [] if turn.rejected is None else [turn.rejected]
    return [*parts, turn.instruction or "", turn.response, *rejected]


def _digest(turn: Turn) -> bytes:
    """Return a digest of 8 bytes: one collision in 4e7 sets of a million turns."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts_of(turn):
        content = part.encode()
        digest.update(b"%d:" % len(content))  # else ("ab", "c") and ("a", "bc") would be equal
        digest.update(content)
    return digest.digest()
