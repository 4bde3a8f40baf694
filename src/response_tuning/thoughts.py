r"""Separates a reasoning model's thoughts from its answer.

Reasoning models write their thoughts between marks such as ``<think>…</think>``; if the chat
template opens the block, there is only a closing mark. Completions on disk keep every word.
Grading, judging and rewriting use only the text outside the thoughts.
"""

import re
from typing import NamedTuple

from response_tuning.artifacts import Completion

_NAMES = (
    r"(?:seed:)?(?:ant)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|"
    r"chain[_-]of[_-]thought|(?:reason|think)ing[_-]process|(?:inner|internal)[_-]monologue)"
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
_CHANNEL_ENDS = re.compile(r"<\|(?:end|return|call|start)\|>")
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
    """The part of a completion that is for the user."""

    text: str
    thinking: bool
    """Whether there are only thoughts and no answer."""


def answer(completion: Completion) -> Answer:
    """Return the answer in a completion."""
    parsed = without_thoughts(completion.response or "")
    thinking = parsed.thinking or (completion.reasoning is not None and not parsed.text.strip())
    return Answer(parsed.text, thinking)


def without_thoughts(text: str) -> Answer:
    """Return the text outside the thoughts; without thoughts, the text as it is."""
    if "<|channel|>" in text:
        return _final_channel(text)
    if _BARE.match(text) and _BARE_FINAL in text:
        rest = text.rpartition(_BARE_FINAL)[2].strip()
        return Answer(rest, thinking=not rest)
    # Only after the two formats above, whose marks are not pairs.
    outside = _outside(text)
    if outside is None:
        return Answer(text, thinking=False)
    rest = outside.strip()
    for wrapper in _WRAPPERS:
        if whole := wrapper.fullmatch(rest):
            rest = whole["in"]
    return Answer(rest, thinking=not rest)


def _outside(text: str) -> str | None:
    """Return the text outside all marked blocks; None if there are none.

    A closing mark ends the open block. If no block is open, the first closing mark means that the
    prompt opened it, so everything before is a thought; the same holds after a nested block. Other
    closing marks, and marks in code, are part of the answer. An opening mark that is never closed
    begins a thought if it begins a line; elsewhere it is part of the answer.
    """
    kept: list[str] = []
    opened: int | None = None
    end = 0
    has_marks = False
    coded, begins = "`" in text, len(text) - len(text.lstrip())
    owed = 1  # closing marks that may yet end what no mark opened here
    for mark in _MARK.finditer(text):
        closes = _closes(mark)
        if closes and opened is None and not owed:
            continue
        if _is_quoted(text, mark) or (coded and opened is None and _in_code(text, mark)):
            continue
        if closes:
            if opened is None:
                kept.clear()
                owed -= 1
            opened, end, has_marks = None, mark.end(), True
        elif opened is None:
            owed -= mark.start() == begins
            kept.append(text[end : mark.start()])
            opened = mark.start()
        else:
            owed += 1
    if opened is None:
        return "".join([*kept, text[end:]]) if has_marks else None
    if not text[end:opened].rpartition("\n")[2].strip():
        return "".join(kept)
    return "".join([*kept, text[opened:]]) if has_marks else None


def _closes(mark: "re.Match[str]") -> bool:
    signs = (mark[name] or "" for name in "abcde")
    return any(sign.lower() in _CLOSES for sign in signs)


def _is_quoted(text: str, mark: "re.Match[str]") -> bool:
    """Whether a mark is in quotation marks or backticks: the answer mentions it."""
    around = text[mark.start() - 1 : mark.start()] + text[mark.end() : mark.end() + 1]
    return mark.start() > 0 and around in ('""', "''", "``", "\u201c\u201d", "\u2018\u2019")


def _in_code(text: str, mark: "re.Match[str]") -> bool:
    """Whether a mark is between backticks of its line, or in a code fence."""
    before, after = text[: mark.start()], text[mark.end() :]
    if before.count("```") % 2 and "```" in after:
        return True
    line = before.rpartition("\n")[2].replace("```", "")
    return line.count("`") % 2 == 1 and "`" in after.partition("\n")[0]


def _final_channel(text: str) -> Answer:
    final = None
    for channel in _CHANNEL.finditer(text):
        if channel[1].lower() == "final":
            final = _CHANNEL_ENDS.split(text[channel.end() :], maxsplit=1)[0]
    rest = (final or "").strip()
    return Answer(rest, thinking=not rest)
