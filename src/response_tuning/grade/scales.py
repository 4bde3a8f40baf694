"""Scores from 1 to 5 that a judge gives as JSON, read strictly: what is unclear is no score.

The verdict is the last JSON object of a reply. An answer that holds such an object does no harm
where the judge quotes it, for its own comes later; and where the judge's own is broken, so that a
quoted one is the last to be whole, the loose braces around that one give it away.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from response_tuning.readers import shown

LOWEST, HIGHEST = 1, 5
TWICE = "given twice"
_SCORE = re.compile(r"([0-9](?:\.[0-9]+)?)(?:\s*/\s*5|\s+out of 5)?\s*(?:\([^()0-9]*\))?\.?", re.I)


class Rating(NamedTuple):
    """What a judge said about one aspect."""

    score: float | None
    """1 to 5; None: it could not be read."""
    said: str
    """The reason for the score; what was there in its place if there is none."""


def ratings(reply: str, aspects: Iterable[str]) -> dict[str, Rating]:
    """Return what ``{"aspect": {"reason": …, "score": …}, …}`` in a reply says of each aspect.

    A bare score in place of the inner object is understood, and so are keys in any case.
    """
    found = last_object(reply) or {}
    return {aspect: _rating(found.get(aspect)) for aspect in aspects}


def last_object(reply: str) -> dict[str, Any] | None:
    """Return the last JSON object of a reply, its keys in lower case.

    None where there is none, or where braces around it say that it is a piece of something broken:
    one after it, or before it one that is still open.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_lowered, strict=False)  # line breaks in strings
    found = None
    start = end = 0
    at = reply.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(reply, at)
            start = at
        except ValueError:  # not JSON, or a huge integer
            found, end = None, at + 1
        except RecursionError:  # nesting without end; each of its braces would begin it again
            return None
        at = reply.find("{", end)
    closed = reply.count("{", 0, start) == reply.count("}", 0, start)
    return found if closed and "}" not in reply[end:] else None


def read_score(value: object) -> float | None:
    """Return a score as a number from 1 to 5: ``4``, ``"4"``, ``"4/5"`` or ``"4 (good)"``.

    None for everything else: another scale, a range, a word, a number out of range.
    """
    if isinstance(value, str):
        match = _SCORE.fullmatch(value.strip())
        value = float(match[1]) if match else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if LOWEST <= value <= HIGHEST else None


def _rating(said: object) -> Rating:
    value, reason = said, ""
    if isinstance(said, dict):
        value, reason = said.get("score"), said.get("reason", "")
    score = read_score(value)
    if score is None:
        return Rating(None, "missing" if value is None else shown(value))
    # JSON can write half a surrogate pair, which no file can hold.
    return Rating(score, str(reason).encode(errors="replace").decode())


def _lowered(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; a key that is there twice has no value that could be told from the other."""
    keys = [key.strip().lower() for key, _ in pairs]
    counts = Counter(keys)
    return {
        key: value if counts[key] == 1 else TWICE
        for key, (_, value) in zip(keys, pairs, strict=True)
    }
