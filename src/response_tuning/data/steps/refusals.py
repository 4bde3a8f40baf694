"""Which responses decline: the paper's test of two words, and one of what a refusal says.

The paper takes for a refusal whatever holds the word "AI" or "sorry" (section 5; its code, not its
text): it lets "AI is great" pass and misses "I can't help with that". ``phrases`` looks for what
declining sounds like.
"""

import re
from collections.abc import Callable

from response_tuning.refusal_phrases import declines
from response_tuning.registry import unknown

_PAPER = re.compile(r"\b(ai|sorry)\b")

SELECTORS: dict[str, Callable[[str], bool]] = {
    "paper-regex": lambda text: bool(_PAPER.search(text.lower())),
    "phrases": declines,
    "all": lambda _: True,
}
"""Name -> whether a response counts as a refusal."""


def is_refusal(text: str, selector: str = "phrases") -> bool:
    """Say whether a response declines, by the rule called ``selector``.

    Raises:
        ConfigError: there is no such rule.
    """
    if selector not in SELECTORS:
        raise unknown("refusal selector", selector, sorted(SELECTORS))
    return SELECTORS[selector](text)
