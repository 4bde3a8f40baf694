"""Scores from 1 to 5 that a judge gives as JSON, read strictly: an unclear score is no score.

The verdict is the one JSON object of a reply that scores an aspect. An object that the judged text
contains too is a quotation, and so is an object among other words that shares a score with the
judged text. Two objects that differ are ambiguous. If the judge's own object is broken and a quoted
one is whole, unbalanced braces reveal it.
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
"""A code fence around an object that is the whole reply."""


class AspectScore(NamedTuple):
    """The score that a judge gives one aspect."""

    score: float | None
    """1 to 5; None: it could not be read."""
    reason: str
    """The judge's reason for the score. Without a score: the text in its place."""


class _JsonObject(NamedTuple):
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

    A bare score in place of the inner object counts, and so do keys in any case. ``material`` is
    the judged text.
    """
    names = [*aspects]
    scored = only_object(reply, names, material) or {}
    return {aspect: _aspect_score(scored.get(aspect)) for aspect in names}


def only_object(reply: str, keys: Iterable[str], material: str = "") -> dict[str, Any] | None:
    """Return the JSON object of a reply that has any of ``keys``, with its keys in lower case.

    None if there is no such object outside ``material``, if several differ, or if unbalanced braces
    show that the object is part of something broken: a brace before it is still open, or one after
    it belongs to no object.
    """
    objects = _objects(reply)
    wanted = _own(reply, objects, keys, material)
    if not wanted or any(one.value != wanted[0].value for one in wanted):
        return None
    own = wanted[-1]  # all are equal, so the last one stands for all
    after = "".join(_between(reply, [one for one in objects if one.start >= own.end], own.end))
    closed = reply.count("{", 0, own.start) == reply.count("}", 0, own.start)
    return own.value if closed and not {"{", "}"} & {*after} else None


def has_object(reply: str, keys: Iterable[str], material: str = "") -> bool:
    """Whether a reply has an object with any of ``keys`` that is not in ``material``."""
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


def _own(
    reply: str, objects: Sequence[_JsonObject], keys: Iterable[str], material: str
) -> list[_JsonObject]:
    """Return the objects with any of ``keys`` that are not quotations."""
    names = {*keys}
    own = [one for one in objects if one.value.keys() & names]
    quoted = [one.value for one in _objects(material)] if own else []
    own = [one for one in own if one.value not in quoted]
    if len(own) == 1 and _is_whole(reply, own[0]):
        return own
    judged = words(material) if own else ""
    return [one for one in own if not (_in_block_quote(reply, one) or _shares(judged, one, names))]


def _is_whole(reply: str, one: _JsonObject) -> bool:
    """Whether a reply is only this object, with or without a code fence."""
    around = (reply[: one.start], reply[one.end :])
    return all(_WRAPPING.fullmatch(text.strip()) is not None for text in around)


def _in_block_quote(reply: str, one: _JsonObject) -> bool:
    return reply[: one.start].rpartition("\n")[2].lstrip().startswith(">")


def _shares(judged: str, one: _JsonObject, names: Iterable[str]) -> bool:
    """Whether the judged text gives any of ``names`` the score that the object gives it."""
    for name in names:
        value = one.value.get(name)
        nested = isinstance(value, dict)
        claimed = value.get("score") if isinstance(value, dict) else value
        score = read_score(claimed)
        claimed = claimed if score is None else f"{score:g}"
        if claimed is None:
            continue
        if says(judged, name, claimed) or (nested and says_within(judged, name, "score", claimed)):
            return True
    return False


def _objects(text: str) -> list[_JsonObject]:
    """Return the outermost JSON objects of a text; empty if they nest too deeply to be read."""
    decoder = json.JSONDecoder(object_pairs_hook=_lowered, strict=False)  # line breaks in strings
    objects = []
    at = text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
            objects.append(_JsonObject(at, end, value))
        except ValueError:  # not JSON, or a huge integer
            end = at + 1
        except RecursionError:  # each of its braces would begin it again
            return []
        at = text.find("{", end)
    return objects


def _between(text: str, objects: Sequence[_JsonObject], start: int) -> Iterator[str]:
    """Yield the text between ``objects``, from ``start`` on."""
    for one in objects:
        yield text[start : one.start]
        start = one.end
    yield text[start:]


def _aspect_score(given: object) -> AspectScore:
    value, reason = given, ""
    if isinstance(given, dict):
        value, reason = given.get("score"), given.get("reason", "")
    score = read_score(value)
    if score is None:
        return AspectScore(None, "missing" if value is None else shown(value))
    # JSON can write half a surrogate pair, which no file can hold.
    return AspectScore(score, str(reason).encode(errors="replace").decode())


def _lowered(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object; a key that occurs twice gets a value that no score equals."""
    keys = [key.strip().lower() for key, _ in pairs]
    counts = Counter(keys)
    return {
        key: value if counts[key] == 1 else TWICE
        for key, (_, value) in zip(keys, pairs, strict=True)
    }
