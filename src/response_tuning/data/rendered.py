"""Whole conversations in one text, with the markers of a chat template."""

import re

RENDERED = "looks like a whole conversation in one text"
_SIDES = [
    (re.compile(asks, re.IGNORECASE), re.compile(answers, re.IGNORECASE))
    for asks, answers in (
        (
            r"#{2,3} ?(?:human|user|instruction|input)\s*:",
            r"#{2,3} ?(?:assistant|response|gpt|bot)\s*:",
        ),
        (r"<\|im_start\|>user", r"<\|im_start\|>assistant"),
        (r"<\|start_header_id\|>user", r"<\|start_header_id\|>assistant"),
        (r"<start_of_turn>user", r"<start_of_turn>model"),
        (r"<\|(?:user|prompter)\|>", r"<\|assistant\|>"),
        (r"\[INST\]", r"\[/INST\]"),
        (r"\A\s*(?:human|user):", r"\n\s*(?:assistant|ai|bot|gpt|chatgpt):"),
    )
]
"""Markers of the user and of the assistant in common templates."""


def is_rendered(text: str) -> bool:
    """Whether ``text`` has a user's marker and, behind it, the assistant's of the same template."""
    # Most texts have no marker at all, and substring search rules them out much faster than the
    # regular expressions.
    begins = text[:20].lstrip()[:6].lower().startswith(("human:", "user:"))
    if not (
        begins or "##" in text or "<|" in text or "<start_of_turn>" in text or "[INST]" in text
    ):
        return False
    for asks, answers in _SIDES:
        first = asks.search(text)
        if first and answers.search(text, first.end()):
            return True
    return False
