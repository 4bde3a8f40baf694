"""Openings that give the instruction away, such as "Sure, here is a recipe for chicken soup:".

Whoever learns from responses alone reads in such an opening what was asked. Hewitt et al. (2024,
arXiv 2409.14254, section 4) found 99 in LIMA's 1,030 rows and, as a control, trained without them.
What is found here announces an answer without being part of it, so that it can be cut off.
"""

import re

STEM = 5
"""Leading letters in which two forms of a word agree: "recipes" and "recipe"."""

_PLEASANTRY = (
    r"(?:(?:sure|certainly|of course|absolutely|definitely|yes|ok|okay|great|alright"
    r"|no problem|no worries|thanks|thank you|understood)\b(?: [a-z ]{1,30})?[!,.:;]*\s+)?"
)
_CLAUSE = r"(?:(?:to|if|for|in|as|based on)\b[^\n.:!?]{3,120},\s+)?"  # "To stay fit, here are ..."
_ANNOUNCEMENT = re.compile(
    rf"[\s*_#>\"]*{_PLEASANTRY}{_CLAUSE}"
    r"(?:(?:here(?:['\u2019]s| is| are)|below (?:is|are)|(?:the )?following (?:is|are))\b"
    r"(?![^\n:.!?]{0,200}, (?:but|however)\b)"  # then it says something as well
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
# Words of an opening that tell nothing of what was asked.
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
    """Return the leading part that gives the instruction away, or None.

    Either it announces what follows ("Here are five tips for ...:"), or, with an ``instruction``,
    it is a heading, a question or a "There are several ..." that has no content word of its own
    and at least half of the instruction's. A whole response is never one.
    """
    found = _announcement(text) or _repetition(text, instruction or "")
    return found if found and text[len(found) :].strip() else None


def stripped(text: str, instruction: str | None = None) -> str:
    """Return the response without its ``opening``, from the next word or indented line on."""
    found = opening(text, instruction)
    if found is None:
        return text
    rest = text[len(found) :]
    blank = rest[: len(rest) - len(rest.lstrip())]
    return rest[blank.rfind("\n") + 1 or len(blank) :]


def _announcement(text: str) -> str | None:
    found = _ANNOUNCEMENT.match(text)
    return found.group() if found and _content(found["here"] or found["these"]) else None


def _repetition(text: str, instruction: str) -> str | None:
    found = _REPEATABLE.match(text)
    if not found:
        return None
    said, asked = _content(found.group()), _content(instruction)
    repeats = len(said) >= 2 and said <= asked and 2 * len(said) >= len(asked)
    return found.group() if repeats else None


def _content(text: str) -> frozenset[str]:
    """Return the stems of the words that tell something; "no" and "not" are among them."""
    words = (word.lower() for word in _WORD.findall(text))
    return frozenset(word[:STEM] for word in words if word not in _EMPTY)
