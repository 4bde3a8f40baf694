r"""What a model thinks aloud is no part of its answer.

Reasoning models write their thoughts between marks, ``<think>…</think>`` and the like; where the
chat template opens the block, the closing mark stands alone. What a completion holds is kept word
for word. What is graded, judged and taken for a rewrite is what stands outside the thoughts.
"""

import re
from typing import NamedTuple

from response_tuning.artifacts import Completion

_NAMES = (
    r"(?:seed:)?(?:ant)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|"
    r"chain[_-]of[_-]thought)"
)
# Qwen, DeepSeek and most; Mistral; Kimi; Cohere and OpenThoughts; templates with bars.
_MARK = re.compile(
    rf"<\s*(?P<a>/?)\s*{_NAMES}(?:\s[^<>\n]*)?>"
    rf"|\[(?P<b>/?){_NAMES}\]"
    rf"|\u25c1(?P<c>/?){_NAMES}\u25b7"
    rf"|<\|(?P<d>/|end_of_|end_|start_of_|start_|begin_of_|begin_)?{_NAMES}(?:_(?P<e>start|end))?\|>",
    re.IGNORECASE,
)
_CLOSES = {"/", "end", "end_", "end_of_"}
# OpenAI's gpt-oss, as it is and as a tokenizer writes it that leaves special tokens out.
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*(?:<\|[a-z_]+\|>[^<]*)*?<\|message\|>")
_ENDS = re.compile(r"<\|(?:end|return|call|start)\|>")
_BARE = re.compile(r"\s*(?:analysis|commentary)(?=[A-Z\"'])")
_BARE_FINAL = "assistantfinal"
_WRAPPERS = (
    re.compile(
        r"<(answer|response|final|output)>\s*(?P<in>.*?)\s*</\1>", re.DOTALL | re.IGNORECASE
    ),
    re.compile(
        r"<\|(?:begin_of_(?:solution|answer)|start_response)\|>\s*(?P<in>.*?)\s*"
        r"(?:<\|(?:end_of_(?:solution|answer)|end_response)\|>)?",
        re.DOTALL | re.IGNORECASE,
    ),
)


class Answer(NamedTuple):
    """What a model said to the user."""

    text: str
    thinking: bool
    """Whether nothing but thoughts came, so that there is no answer."""


def answer(completion: Completion) -> Answer:
    """Return the answer that a completion holds."""
    found = without_thoughts(completion.response or "")
    thinking = found.thinking or (completion.reasoning is not None and not found.text.strip())
    return Answer(found.text, thinking)


def without_thoughts(text: str) -> Answer:
    """Return what ``text`` says outside its thoughts; word for word where it holds none."""
    if "<|channel|>" in text:
        return _final_channel(text)
    if _BARE.match(text):
        _, final, said = text.rpartition(_BARE_FINAL)
        return Answer(said.strip() if final else "", thinking=not final or not said.strip())
    outside = _outside(text)
    if outside is None:
        return Answer(text, thinking=False)
    said = outside.strip()
    for wrapper in _WRAPPERS:
        if whole := wrapper.fullmatch(said):
            said = whole["in"]
    return Answer(said, thinking=not said)


def _outside(text: str) -> str | None:
    """Return what stands outside all marked blocks; None if there are none.

    A closing mark ends whatever is open. Where nothing is, the prompt opened the block, and all
    that came before is a thought. An opening mark that nothing closes begins a thought where it
    begins a line; elsewhere the answer speaks of it.
    """
    kept: list[str] = []
    opened: int | None = None
    end = 0
    found = False
    for mark in _MARK.finditer(text):
        if _is_quoted(text, mark):
            continue
        if _closes(mark):
            if opened is None:
                kept.clear()
            opened, end, found = None, mark.end(), True
        elif opened is None:
            kept.append(text[end : mark.start()])
            opened = mark.start()
    if opened is None:
        return "".join([*kept, text[end:]]) if found else None
    if not text[end:opened].rpartition("\n")[2].strip():
        return "".join(kept)
    return "".join([*kept, text[opened:]]) if found else None


def _closes(mark: "re.Match[str]") -> bool:
    signs = (mark[name] or "" for name in "abcde")
    return any(sign.lower() in _CLOSES for sign in signs)


def _is_quoted(text: str, mark: "re.Match[str]") -> bool:
    """Whether a mark stands in quotation marks or backticks of its own: it is spoken of."""
    around = text[mark.start() - 1 : mark.start()] + text[mark.end() : mark.end() + 1]
    return mark.start() > 0 and around in ('""', "''", "``", "\u201c\u201d", "\u2018\u2019")


def _final_channel(text: str) -> Answer:
    final = None
    for channel in _CHANNEL.finditer(text):
        if channel[1].lower() == "final":
            final = _ENDS.split(text[channel.end() :], maxsplit=1)[0]
    said = (final or "").strip()
    return Answer(said, thinking=not said)
