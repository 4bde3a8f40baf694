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
_SYSTEM, _REPLY_AGAIN, _THIRD = "zwsystemwz", "zwagainwz", "zwthirdwz"
_ASKED = (Message(role="user", content=_FIRST),)
_ENDED = (*_ASKED, Message(role="assistant", content=_REPLY))
_GOING_ON = (*_ENDED, Message(role="user", content=_SECOND))
_PROBES = {
    "a user's message": _ASKED,
    "a second question": _GOING_ON,
    "a third question": (
        *_GOING_ON,
        Message(role="assistant", content=_REPLY_AGAIN),
        Message(role="user", content=_THIRD),
    ),
    "a system message": (Message(role="system", content=_SYSTEM), *_ASKED),
}
"""Conversations that a template may treat differently, by what is new in them."""
_LONG = " ".join(f"W{number}" for number in range(300))
_WORDS = re.compile(f"{_SYSTEM}|{_FIRST}")


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


def has_own_mark(render: Render, known: Marks) -> bool:
    """Whether every conversation begins with the tokenizer's own mark: BOS for most.

    Raises:
        TemplateError: some do and others do not, or one has the mark twice.
    """
    found = {
        probe: _through_own_mark(before, known) for probe, before in _before_words(render).items()
    }
    mark = known.front or known.bos or ""
    without = next((probe for probe, through in found.items() if not through), None)
    marked = next((probe for probe, through in found.items() if through), None)
    if without and marked:
        raise TemplateError(
            f"the template prints {mark!r} in front of a conversation with {marked}, but not with "
            f"{without}; print it first and under no condition, or not at all"
        )
    return bool(marked)


def refuse_two_marks(render: Render, mark: str) -> None:
    """Refuse a template that begins a conversation with ``mark`` twice.

    Raises:
        TemplateError: it does.
    """
    twice = re.compile(rf"\s*{re.escape(mark)}\s*{re.escape(mark)}")
    for probe, before in _before_words(render).items():
        if mark and twice.match(before):
            raise TemplateError(
                f"the template begins a conversation with {probe} with {mark!r} twice; take one "
                "out of it"
            )


def _before_words(render: Render) -> dict[str, str]:
    return {
        probe: _WORDS.split(render(messages, True), maxsplit=1)[0]
        for probe, messages in accepted(render).items()
    }


def accepted(render: Render) -> dict[str, tuple[Message, ...]]:
    """Return the probes that the template takes; it must take a user's message alone.

    Raises:
        TemplateError: it refuses that.
    """
    taken = {}
    for probe, messages in _PROBES.items():
        try:
            render(messages, True)
        except TemplateError:
            if messages == _ASKED:
                raise
        else:
            taken[probe] = messages
    return taken


def left_out(rendered: str, messages: Sequence[Message]) -> bool:
    """Whether a rendered prompt lacks the text of a message, or has it in another form."""
    return any(message.content.strip() not in rendered for message in messages)


def changes_a_message(render: Render) -> str | None:
    """Return the first probe in which the template leaves out or changes a message."""
    for probe, messages in accepted(render).items():
        # Upper and lower case, what HTML and JSON escape, and more than a few words.
        wordy = [
            message.model_copy(update={"content": f'{message.content} <Is> "This" & all {_LONG}'})
            for message in messages
        ]
        if left_out(render(wordy, True), wordy):
            return probe
    return None


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
    for probe, messages in accepted(render).items():
        another = _opened(render, messages)
        if another != opening:
            later = "one after a system message" if probe == "a system message" else "a later one"
            raise TemplateError(
                f"the template opens the first answer with {opening!r} and {later} with "
                f"{another!r}, so there is no single opening to learn answers after; use "
                "--template tulu"
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
