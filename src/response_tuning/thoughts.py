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
    """What a model said to the user."""

    text: str
    thinking: bool
    """Whether nothing but thoughts came, so that there is no answer."""


def answer(completion: Completion) -> Answer:
    """Return the answer that a completion holds."""
    parsed = without_thoughts(completion.response or "")
    thinking = parsed.thinking or (completion.reasoning is not None and not parsed.text.strip())
    return Answer(parsed.text, thinking)


def without_thoughts(text: str) -> Answer:
    """Return what ``text`` says outside its thoughts; word for word where it holds none."""
    if "<|channel|>" in text:
        return _final_channel(text)
    if _BARE.match(text) and _BARE_FINAL in text:
        rest = text.rpartition(_BARE_FINAL)[2].strip()
        return Answer(rest, thinking=not rest)
    outside = _outside(text)
    if outside is None:
        return Answer(text, thinking=False)
    rest = outside.strip()
    for wrapper in _WRAPPERS:
        if whole := wrapper.fullmatch(rest):
            rest = whole["in"]
    return Answer(rest, thinking=not rest)


def _outside(text: str) -> str | None:
    """Return what stands outside all marked blocks; None if there are none.

    A closing mark ends whatever is open. Where nothing is, the first one says that the prompt
    opened the block, and all that came before is a thought; so is what follows a block within a
    block. The answer speaks of any other, and of marks in code. An opening mark that nothing closes
    begins a thought where it begins a line; elsewhere the answer speaks of it.
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
    """Whether a mark stands in quotation marks or backticks of its own: it is spoken of."""
    around = text[mark.start() - 1 : mark.start()] + text[mark.end() : mark.end() + 1]
    return mark.start() > 0 and around in ('""', "''", "``", "\u201c\u201d", "\u2018\u2019")


def _in_code(text: str, mark: "re.Match[str]") -> bool:
    """Whether a mark stands between backticks of its line, or in a fence."""
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
