"""What a refiner's reply holds: the rewrite after the last marker line, or why there is none."""

import re
from typing import NamedTuple

from response_tuning.artifacts import Completion
from response_tuning.configs import RefinementOutcome
from response_tuning.data.steps.refusals import is_refusal
from response_tuning.thoughts import answer

MARKER = "Refined response:"
"""The line that the prompts ask for, between the review and the rewrite (paper, appendix G)."""

# At the start of a line, so that a review that speaks of "the refined response: ..." is no marker.
# The words may be numbered, a heading, or in bold type.
_MARKER_LINE = re.compile(
    r"^[ \t]*(?:#{1,6}[ \t]+)?(?:\*\*|__)?(?:2[.)][ \t]+)?(?:\*\*|__)?refined response[ \t]*"
    r"(?:(?:\*\*|__)[ \t]*:|:[ \t]*(?:\*\*|__)?)",
    re.IGNORECASE | re.MULTILINE,
)
_FENCE = re.compile(r"(`{3,}|~{3,})[ \t]*(\w*)[ \t]*\n(.*?)\n[ \t]*\1[ \t]*", re.DOTALL)
_PROSE = ("markdown", "md", "text", "txt", "plaintext")
"""Languages of a fence that is a wrapping for sure; other ones are code."""
_WRAPPINGS = (
    ("<response>", "</response>"),
    ('"""', '"""'),
    ('"', '"'),
    ("\u201c", "\u201d"),
    ("**", "**"),
    ("[", "]"),
)


class Verdict(NamedTuple):
    """What came of a request for a rewrite."""

    outcome: RefinementOutcome
    text: str | None = None
    """The rewrite, with nothing around it: set if there is one, usable or not."""


def judge(reply: Completion, original: str) -> Verdict:
    """Say what ``reply`` to a request to rewrite ``original`` is worth.

    The refiner's thoughts are no part of it. A rewrite that reached the token limit is not used,
    however whole it looks; neither is a refusal of what was none.
    """
    if reply.response is None:
        return Verdict("error")
    if reply.finish_reason == "filtered":
        return Verdict("filtered")
    said, thinking = answer(reply)
    text = rewrite(said, original)
    if reply.finish_reason == "length":
        return Verdict("truncated", text)
    if thinking:
        return Verdict("empty")
    if is_refusal(said if text is None else text) and not is_refusal(original):
        return Verdict("refused", text)
    if text is None:
        return Verdict("no-marker")
    if not text:
        return Verdict("empty")
    return Verdict("unchanged" if text == original.strip() else "refined", text)


def rewrite(reply: str, original: str) -> str | None:
    """Return what follows the last marker line, unwrapped; None if there is no such line.

    The last, because a review may quote the line and a model may draft before it decides. So what
    a rewrite says before a marker line of its own is lost.
    """
    markers = list(_MARKER_LINE.finditer(reply))
    return _unwrapped(reply[markers[-1].end() :].strip(), original.strip()) if markers else None


def _unwrapped(text: str, original: str) -> str:
    """Take one fence, and one pair of marks, off the whole of ``text``.

    What the original has around it too, or what could be two pairs, belongs to the text.
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
