"""Parses a refiner's reply: the rewrite after the last marker line, or why it is unusable."""

import re
from typing import NamedTuple

from response_tuning.artifacts import Completion
from response_tuning.data.steps.refusals import is_refusal
from response_tuning.rewriting import RefinementOutcome
from response_tuning.thoughts import answer

MARKER = "Refined response:"
"""The line between the review and the rewrite, as the prompts request (paper, appendix G)."""

# Only at the start of a line: a review may mention "the refined response: ..." in a sentence. The
# marker may be numbered, a heading, or bold.
_MARKER_LINE = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]+)?(?:\*\*|__)?(?:2[.)][ \t]+)?(?:\*\*|__)?refined response[ \t]*"
    r"(?:(?:\*\*|__)[ \t]*:|:[ \t]*(?:\*\*|__)?)",
    re.IGNORECASE | re.MULTILINE,
)
_FENCE = re.compile(r"(`{3,}|~{3,})[ \t]*(\w*)[ \t]*\n(.*?)\n[ \t]*\1[ \t]*", re.DOTALL)
_PROSE = ("markdown", "md", "text", "txt", "plaintext")
"""Languages of a fence that only wraps the text; other languages are code."""
_WRAPPINGS = (
    ("<response>", "</response>"),
    ('"""', '"""'),
    ('"', '"'),
    ("\u201c", "\u201d"),
    ("**", "**"),
    ("[", "]"),
)


class ParsedReply(NamedTuple):
    """The outcome of a request for a rewrite."""

    outcome: RefinementOutcome
    text: str | None = None
    """The rewrite, unwrapped; set if the reply has one, usable or not."""


def parse_reply(reply: Completion, original: str) -> ParsedReply:
    """Return the outcome of a request to rewrite ``original``.

    The refiner's thoughts are ignored. A rewrite that reached the token limit is not usable,
    however complete it looks, nor is a refusal, unless the original is one.
    """
    if reply.response is None:
        return ParsedReply("error")
    if reply.finish_reason == "filtered":
        return ParsedReply("filtered")
    content, thinking = answer(reply)
    text = rewrite(content, original)
    # The order matters: a truncated reply may look like a refusal or lack its marker, and a refusal
    # seldom has the marker.
    if reply.finish_reason == "length":
        return ParsedReply("truncated", text)
    if thinking:
        return ParsedReply("empty")
    if is_refusal(content if text is None else text) and not is_refusal(original):
        return ParsedReply("refused", text)
    if text is None:
        return ParsedReply("no-marker")
    if not text:
        return ParsedReply("empty")
    return ParsedReply("unchanged" if text == original.strip() else "refined", text)


def rewrite(reply: str, original: str) -> str | None:
    """Return the text after the last marker line, unwrapped; None without a marker line.

    The last one counts, because a review may quote the marker and a model may write a draft first.
    A rewrite that contains a marker line itself therefore loses its beginning.
    """
    markers = list(_MARKER_LINE.finditer(reply))
    return _unwrapped(reply[markers[-1].end() :].strip(), original.strip()) if markers else None


def _unwrapped(text: str, original: str) -> str:
    """Remove one fence and one pair of marks around the whole ``text``.

    A wrapping that the original has too, or marks that may be two pairs, belong to the text.
    """
    fence = _FENCE.fullmatch(text)
    if fence and not _FENCE.fullmatch(original):
        _, language, inside = fence.groups()
        if language.lower() in _PROSE or (not language and fence[1] not in inside):
            text = inside.strip()
    for opening, closing in _WRAPPINGS:
        if _is_wrapped(text, opening, closing) and not _is_wrapped(original, opening, closing):
            return text[len(opening) : -len(closing)].strip()
    return text


def _is_wrapped(text: str, opening: str, closing: str) -> bool:
    if len(text) < len(opening + closing):
        return False
    inside = text[len(opening) : -len(closing)]
    around = text.startswith(opening) and text.endswith(closing)
    return around and opening not in inside and closing not in inside
