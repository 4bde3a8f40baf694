"""Continuations: a model goes on with the first half of a text (Xie et al. 2024, 2409.00096).

The paper does not say how its teacher is asked, nor what is done with a bad continuation. Both are
choices here: two requests, and the outcomes below.
"""

import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.artifacts import Completion, Example, Message, Request, digest
from response_tuning.data.refinement.reply import ParsedReply
from response_tuning.data.steps.near_duplicates import triples, words
from response_tuning.data.steps.refusals import is_refusal
from response_tuning.data.steps.restatements import opening
from response_tuning.thoughts import answer

if TYPE_CHECKING:
    import jinja2

COPY = 0.5
"""A continuation whose word triples have this Jaccard similarity with the half's is a copy."""
LONGEST = 2
"""A continuation of more than so many times the words of its half does not end where it should."""
_ABOUT_THE_TEXT = re.compile(
    r"\W*(?:(?:sure|certainly|of course|okay|ok)\b[!,.:]"
    r"|here(?:['\u2019]s| is| are)\b[^\n.]{0,60}"
    r"\b(?:continuation|second half|rest of|text|passage|story|version|rewrite|summary)\b"
    r"|(?:this|the|your) (?:text|passage|excerpt|paragraph|sentence)\b"
    r"|it (?:seems|looks|sounds|appears) (?:like|that|as)\b"
    r"|thank you for\b|thanks for\b|as an ai\b|(?:second half|continuation)\s*:)",
    re.IGNORECASE,
)
"""How a message about a text begins, and no second half of one."""


def ask_to_continue(example: Example, *, bare: bool) -> Request:
    """Return the request to continue the half that is the instruction of ``example``.

    It is one user's message: the half and what is wanted, or, ``bare``, the half alone.
    """
    half = example.instruction or ""
    content = half if bare else _template().render(half=half)
    message = Message(role="user", content=content)
    return Request(item_id=f"{example.row}.{example.turn}", prompt=(message,))


def wording_digest() -> str:
    """Return a digest of the wording of the request that is not bare."""
    return digest(_wording())


def parse_continuation(reply: Completion, half: str) -> ParsedReply:
    """Return the outcome of a request to continue ``half``, and the continuation.

    A continuation that was cut off, or is more than twice as long as its half, is ``truncated``:
    tuning on it would teach not to stop.
    """
    if reply.response is None:
        return ParsedReply("error")
    if reply.finish_reason == "filtered":
        return ParsedReply("filtered")
    content, thinking = answer(reply)
    text = content.strip()
    if reply.finish_reason == "length" or len(text.split()) > LONGEST * len(half.split()):
        return ParsedReply("truncated", text)
    if thinking or not text:
        return ParsedReply("empty")
    if is_refusal(text):
        return ParsedReply("refused", text)
    if opening(text) is not None or _ABOUT_THE_TEXT.match(text):
        return ParsedReply("comment", text)
    if text.startswith(half.strip()) or _similarity(text, half) > COPY:
        return ParsedReply("copy", text)
    return ParsedReply("refined", text)


def _similarity(one: str, other: str) -> float:
    """Return the Jaccard similarity of the word triples of two texts."""
    first, second = triples(words(one)), triples(words(other))
    return len(first & second) / len(first | second)


@cache
def _template() -> "jinja2.Template":
    import jinja2

    return jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(_wording())


def _wording() -> str:
    return Path(__file__).with_name("continue.jinja").read_text(encoding="utf-8")
