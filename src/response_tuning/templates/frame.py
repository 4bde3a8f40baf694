"""What a template prints around the words of a conversation, found by rendering some of them."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from response_tuning.artifacts import Message
from response_tuning.errors import TemplateError

Render = Callable[[Sequence[Message], bool], str]
"""(messages, whether the assistant speaks next) -> text."""

# No template says these words itself, so they can be found in what it prints.
_FIRST, _REPLY, _SECOND = "zwfirstwz", "zwreplywz", "zwsecondwz"
_ASKED = (Message(role="user", content=_FIRST),)
_ENDED = (*_ASKED, Message(role="assistant", content=_REPLY))
_GOING_ON = (*_ENDED, Message(role="user", content=_SECOND))


class Marks(NamedTuple):
    """What a tokenizer has to mark the beginning of a text."""

    front: str
    """What it puts in front of every plain text; most put BOS, or nothing."""
    bos: str | None
    eos: str | None
    added: tuple[str, ...]
    """All tokens that are no pieces of text, such as those that begin or end a turn."""


def before_the_user(render: Render) -> str:
    """Return what stands before the user's first words."""
    return render(_ASKED, True).partition(_FIRST)[0]


def before_the_turns(render: Render, known: Marks) -> str:
    """Return what every prompt begins with, before any turn: BOS, or marks like ``[gMASK]<sop>``.

    A preface or a system prompt that the template writes is a turn: it is not returned.
    """
    before = before_the_user(render)
    first = before.removesuffix(_user_tag(render) or before)
    mark = "|".join(re.escape(token) for token in sorted(known.added, key=len, reverse=True))
    is_marks = re.fullmatch(rf"(?:\s|{mark})*" if mark else r"\s*", first)
    return max(first if is_marks else "", _through_own_mark(before, known), key=len)


def generation_prompt(render: Render) -> str:
    """Return what opens the assistant's words.

    Raises:
        TemplateError: it stands elsewhere than at the end, or depends on the turns before it.
    """
    opening = _opened(render, _ASKED)
    try:
        later = _opened(render, _GOING_ON)
    except TemplateError:  # a template of a single turn
        return opening
    if later != opening:
        raise TemplateError(
            f"the template opens the first answer with {opening!r} and a later one with {later!r}, "
            "so there is no single opening to learn answers after; use --template tulu"
        )
    return opening


def _opened(render: Render, messages: Sequence[Message]) -> str:
    without, with_opening = (render(messages, ask) for ask in (False, True))
    if not with_opening.startswith(without):
        raise TemplateError("the template's generation prompt is not at its end")
    return with_opening[len(without) :]


def _user_tag(render: Render) -> str | None:
    """Return what opens a user's turn, seen at a second one; None if that does not show it."""
    try:
        ended, going_on = render(_ENDED, False), render(_GOING_ON, True)
    except TemplateError:
        return None
    end = ended.rpartition(_REPLY)[2]
    between = going_on.rpartition(_REPLY)[2].partition(_SECOND)[0]
    return between[len(end) :] if between.startswith(end) else None


def _through_own_mark(before: str, known: Marks) -> str:
    """Return ``before`` up to the end of the tokenizer's own mark; nothing, if it has none."""
    for mark in (known.front, known.bos):
        # Behind words, EOS ends a turn, even if it is BOS as well.
        words = r"\W*?" if mark == known.eos else r"(?s:.*?)"
        if mark and (found := re.match(words + re.escape(mark), before)):
            return found[0]
    return ""
