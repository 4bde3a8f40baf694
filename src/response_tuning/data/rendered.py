"""Conversations that were written out as one text, with the markers of a chat template."""

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
"""How templates mark who asks, and who answers."""
_STARTS = ("##", "<|", "<start_of_turn>", "[INST]")


def is_rendered(text: str) -> bool:
    """Say whether ``text`` holds the markers of both sides: who asks, and then who answers."""
    begins = text[:20].lstrip()[:6].lower().startswith(("human:", "user:"))
    if not begins and not any(start in text for start in _STARTS):
        return False
    for asks, answers in _SIDES:
        first = asks.search(text)
        if first and answers.search(text, first.end()):
            return True
    return False
