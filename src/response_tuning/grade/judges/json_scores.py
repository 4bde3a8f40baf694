"""Scores from 1 to 5 that a judge gives as JSON, read strictly: what is unclear is no score.

The verdict is the one JSON object of a reply that scores anything. One that what was judged holds
as well is a quotation, and so is one among other words that shares a score with what was judged; of
two that differ, nobody knows which is meant. Where the judge's own is broken, so that a quoted one
is the only one to be whole, the loose braces give it away.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from response_tuning.grade.judges.quotation import says, says_within, words
from response_tuning.readers import shown

LOWEST, HIGHEST = 1, 5
TWICE = "given twice"
_SCORE = re.compile(r"([0-9](?:\.[0-9]+)?)(?:\s*/\s*5|\s+out of 5)?\s*(?:\([^()0-9]*\))?\.?", re.I)


_WRAPPING = re.compile(r"(?:(?:```+|~~~+)[ \t]*)?(?:json)?", re.IGNORECASE)
"""What may stand around an object that is all of a reply: a fence."""


class AspectScore(NamedTuple):
    """The score that a judge gives one aspect."""

    score: float | None
    """1 to 5; None: it could not be read."""
    reason: str
    """The judge's reason for the score. Without a score: the text in its place."""


class _Found(NamedTuple):
    start: int
    end: int
    value: dict[str, Any]


def scale_form(aspects: Iterable[str]) -> dict[str, Any]:
    """Return the JSON schema of what ``aspect_scores`` reads."""
    one = {
        "type": "object",
        "properties": {
            "reason": {"type": "string"},
            "score": {"type": "integer", "enum": [*range(LOWEST, HIGHEST + 1)]},
        },
        "required": ["reason", "score"],
        "additionalProperties": False,
    }
    names = [*aspects]
    return {
        "type": "object",
        "properties": dict.fromkeys(names, one),
        "required": names,
        "additionalProperties": False,
    }


def aspect_scores(reply: str, aspects: Iterable[str], material: str = "") -> dict[str, AspectScore]:
    """Return the scores that ``{"aspect": {"reason": …, "score": …}, …}`` in a reply gives.

    A bare score in place of the inner object is understood, and so are keys in any case.
    ``material`` is what was judged.
    """
    names = [*aspects]
    found = only_object(reply, names, material) or {}
    return {aspect: _rating(found.get(aspect)) for aspect in names}


def only_object(reply: str, keys: Iterable[str], material: str = "") -> dict[str, Any] | None:
    """Return the JSON object of a reply that has any of ``keys``, its own keys in lower case.

    None where there is none, or several that differ, apart from those in ``material``; or where
    braces around it say that it is a piece of something broken: one after it that belongs to no
    other, or before it one that is still open.
    """
    objects = _objects(reply)
    wanted = _own(reply, objects, keys, material)
    if not wanted or any(one.value != wanted[0].value for one in wanted):
        return None
    own = wanted[-1]
    after = "".join(_between(reply, [one for one in objects if one.start >= own.end], own.end))
    closed = reply.count("{", 0, own.start) == reply.count("}", 0, own.start)
    return own.value if closed and not {"{", "}"} & {*after} else None


def has_object(reply: str, keys: Iterable[str], material: str = "") -> bool:
    """Whether a reply has an object with any of ``keys`` that ``material`` has not."""
    return bool(_own(reply, _objects(reply), keys, material))


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


def _own(reply: str, objects: Sequence[_Found], keys: Iterable[str], material: str) -> list[_Found]:
    """Return the objects with any of ``keys`` that are no quotations."""
    names = {*keys}
    found = [one for one in objects if one.value.keys() & names]
    quoted = [one.value for one in _objects(material)] if found else []
    found = [one for one in found if one.value not in quoted]
    if len(found) == 1 and _is_whole(reply, found[0]):
        return found
    judged = words(material) if found else ""
    return [
        one for one in found if not (_in_block_quote(reply, one) or _shares(judged, one, names))
    ]


def _is_whole(reply: str, one: _Found) -> bool:
    """Whether a reply is nothing but one object, in a fence or not."""
    around = (reply[: one.start], reply[one.end :])
    return all(_WRAPPING.fullmatch(text.strip()) is not None for text in around)


def _in_block_quote(reply: str, one: _Found) -> bool:
    return reply[: one.start].rpartition("\n")[2].lstrip().startswith(">")


def _shares(judged: str, one: _Found, names: Iterable[str]) -> bool:
    """Whether the words of what was judged say of any of ``names`` what an object says of it."""
    for name in names:
        value = one.value.get(name)
        nested = isinstance(value, dict)
        said = value.get("score") if isinstance(value, dict) else value
        score = read_score(said)
        said = said if score is None else f"{score:g}"
        if said is None:
            continue
        if says(judged, name, said) or (nested and says_within(judged, name, "score", said)):
            return True
    return False


def _objects(text: str) -> list[_Found]:
    """Return the outermost JSON objects of a text; none where its nesting has no end."""
    decoder = json.JSONDecoder(object_pairs_hook=_lowered, strict=False)  # line breaks in strings
    found = []
    at = text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
            found.append(_Found(at, end, value))
        except ValueError:  # not JSON, or a huge integer
            end = at + 1
        except RecursionError:  # each of its braces would begin it again
            return []
        at = text.find("{", end)
    return found


def _between(text: str, objects: Sequence[_Found], start: int) -> Iterator[str]:
    """Yield what stands around ``objects`` from ``start`` on."""
    for one in objects:
        yield text[start : one.start]
        start = one.end
    yield text[start:]


def _rating(said: object) -> AspectScore:
    value, reason = said, ""
    if isinstance(said, dict):
        value, reason = said.get("score"), said.get("reason", "")
    score = read_score(value)
    if score is None:
        return AspectScore(None, "missing" if value is None else shown(value))
    # JSON can write half a surrogate pair, which no file can hold.
    return AspectScore(score, str(reason).encode(errors="replace").decode())


def _lowered(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; a key that is there twice has no value that could be told from the other."""
    keys = [key.strip().lower() for key, _ in pairs]
    counts = Counter(keys)
    return {
        key: value if counts[key] == 1 else TWICE
        for key, (_, value) in zip(keys, pairs, strict=True)
    }
