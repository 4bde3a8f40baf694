"""Openings that restate the instruction, such as "Sure, here is a recipe for chicken soup:".

They leak instructions into training on responses alone. Hewitt et al. (2024, arXiv 2409.14254,
section 4) found 99 in LIMA's 1,030 rows and, as a control, trained without them. The openings
detected here announce an answer without being part of it, so they can be cut off.
"""

import re

from response_tuning.data.steps.mail import greeting_of

STEM = 5
"""Leading letters that forms of a word share: "recipes" and "recipe"."""

_POLITE_OPENING = (
    r"(?:(?:sure|certainly|of course|absolutely|definitely|yes|ok|okay|great|alright"
    r"|no problem|no worries|thanks|thank you|understood)\b(?: [a-z ]{1,30})?[!,.:;]*\s+)?"
)
_CLAUSE = r"(?:(?:to|if|for|in|as|based on)\b[^\n.:!?]{3,120},\s+)?"  # "To stay fit, here are ..."
_ANNOUNCEMENT = re.compile(
    rf"[\s*_#>\"]*{_POLITE_OPENING}{_CLAUSE}"
    r"(?:(?:here(?:['\u2019]s| is| are)|below (?:is|are)|(?:the )?following (?:is|are))\b"
    r"(?![^\n:.!?]{0,200}, (?:but|however)\b)"  # then the sentence says more
    r"(?P<here>[^\n:.!?]{3,200})(?::[*_]*(?=\s)|[.!]?[*_]*(?=[ \t]*\n))"
    r"|these are\b(?P<these>[^\n:.!?]{3,200}):[*_]*(?=\s))",
    re.IGNORECASE,
)
_REPEATABLE = re.compile(
    r"\s*(?:[^\n.:!?]{3,200}[:?]"
    r"|there are (?:a few|a number of|lots of|many|plenty of|several|some|various)\b"
    r"[^\n.:!?]{3,200}\.)(?=\s)",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
# Words that carry nothing of the instruction.
_EMPTY = frozenset(
    _WORD.findall("""
a about all an and another answer answers any are as at be been best but by can code could did
do does each eight example examples few five following for four from give good had has have how
i if in into is it its just let list made make many may me might more my nine of on one or other
our output please possible response result results seven several should six so solution
solutions some step steps tell ten than that the their them then there these they thing things
this those three to two use used using various very was way ways we were what when where which
who why will with would you your
""")
)


def opening(text: str, instruction: str | None = None) -> str | None:
    """Return the opening that restates the instruction, or None.

    It announces what follows ("Here are five tips for ...:") or, given the ``instruction``, is a
    heading, a question or a "There are several ..." whose content words all come from the
    instruction and make up at least half of it. It may follow a greeting, which is not part of it.
    A whole response is never an opening.
    """
    _, leading = _greeting_and_opening(text, instruction or "")
    return leading or None


def stripped(text: str, instruction: str | None = None) -> str:
    """Return the response without its ``opening``, from the next word or indented line on."""
    greeting, leading = _greeting_and_opening(text, instruction or "")
    if not leading:
        return text
    rest = text[len(greeting) + len(leading) :]
    blank = rest[: len(rest) - len(rest.lstrip())]
    return greeting + rest[blank.rfind("\n") + 1 or len(blank) :]


def _greeting_and_opening(text: str, instruction: str) -> tuple[str, str]:
    for greeting in ("", greeting_of(text)):
        behind = text[len(greeting) :]
        leading = _announcement(behind) or _repetition(behind, instruction)
        if leading and behind[len(leading) :].strip():
            return greeting, leading
    return "", ""


def _announcement(text: str) -> str | None:
    match = _ANNOUNCEMENT.match(text)
    return match.group() if match and _content(match["here"] or match["these"]) else None


def _repetition(text: str, instruction: str) -> str | None:
    match = _REPEATABLE.match(text)
    if not match:
        return None
    leading, whole = _content(match.group()), _content(instruction)
    repeats = len(leading) >= 2 and leading <= whole and 2 * len(leading) >= len(whole)
    return match.group() if repeats else None


def _content(text: str) -> frozenset[str]:
    """Return the stems of the content words, which include "no" and "not"."""
    words = (word.lower() for word in _WORD.findall(text))
    return frozenset(word[:STEM] for word in words if word not in _EMPTY)
