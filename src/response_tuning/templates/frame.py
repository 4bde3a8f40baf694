"""What a template prints around messages, measured by rendering probe conversations."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from response_tuning.artifacts import Message
from response_tuning.errors import TemplateError

Render = Callable[[Sequence[Message], bool], str]
"""(messages, whether to open the assistant's turn) -> text."""

# No template contains these words, so their places in a rendered text are certain.
_FIRST, _REPLY, _SECOND = "zwfirstwz", "zwreplywz", "zwsecondwz"
_SYSTEM, _REPLY_AGAIN, _THIRD = "zwsystemwz", "zwagainwz", "zwthirdwz"
_ONE_TURN = (Message(role="user", content=_FIRST),)
_ANSWERED = (*_ONE_TURN, Message(role="assistant", content=_REPLY))
_SECOND_QUESTION = (*_ANSWERED, Message(role="user", content=_SECOND))
_PROBES = {
    "a user's message": _ONE_TURN,
    "a second question": _SECOND_QUESTION,
    "a third question": (
        *_SECOND_QUESTION,
        Message(role="assistant", content=_REPLY_AGAIN),
        Message(role="user", content=_THIRD),
    ),
    "a system message": (Message(role="system", content=_SYSTEM), *_ONE_TURN),
}
"""Conversations that a template may treat differently, by what is new in them."""
_LONG = " ".join(f"W{number}" for number in range(300))
_WORDS = re.compile(f"{_SYSTEM}|{_FIRST}")


class Marks(NamedTuple):
    """What a tokenizer uses to mark the beginning of a text."""

    front: str
    """The text that it puts in front of every plain text: for most BOS, or nothing."""
    bos: str | None
    eos: str | None
    added: tuple[str, ...]
    """All tokens that are not pieces of text, such as those that begin or end a turn."""


def before_the_user(render: Render) -> str:
    """Return the text before the user's first message."""
    return render(_ONE_TURN, True).partition(_FIRST)[0]


def has_own_mark(render: Render, known: Marks) -> bool:
    """Whether every conversation begins with the tokenizer's own mark: BOS for most.

    Raises:
        TemplateError: some conversations do and others do not.
    """
    # Some templates print BOS only in front of a system message; one probe would not show it.
    openings = {
        probe: _through_own_mark(before, known) for probe, before in _before_words(render).items()
    }
    mark = known.front or known.bos or ""
    without = next((probe for probe, through in openings.items() if not through), None)
    marked = next((probe for probe, through in openings.items() if through), None)
    if without and marked:
        raise TemplateError(
            f"the template prints {mark!r} in front of a conversation with {marked}, but not with "
            f"{without}; print it first and under no condition, or not at all"
        )
    return bool(marked)


def refuse_two_marks(render: Render, mark: str) -> None:
    """Refuse a template that begins a conversation with ``mark`` twice.

    Raises:
        TemplateError: it does so.
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
        TemplateError: it refuses a user's message alone.
    """
    taken = {}
    for probe, messages in _PROBES.items():
        try:
            render(messages, True)
        except TemplateError:
            if messages == _ONE_TURN:
                raise  # a template may refuse system messages, say, but not every conversation
        else:
            taken[probe] = messages
    return taken


def left_out(rendered: str, messages: Sequence[Message]) -> bool:
    """Whether a rendered prompt lacks the text of a message or contains it changed."""
    return any(message.content.strip() not in rendered for message in messages)


def changes_a_message(render: Render) -> str | None:
    """Return the first probe in which the template leaves out or changes a message."""
    for probe, messages in accepted(render).items():
        # Both cases, characters that HTML and JSON escape, and a long text: templates that change
        # case, escape or truncate show it here.
        wordy = [
            message.model_copy(update={"content": f'{message.content} <Is> "This" & all {_LONG}'})
            for message in messages
        ]
        if left_out(render(wordy, True), wordy):
            return probe
    return None


def before_the_turns(render: Render, known: Marks) -> str:
    """Return the start of every prompt, before any turn: BOS, or marks like ``[gMASK]<sop>``.

    A preface or a system prompt that the template writes is a turn, and not part of it.
    """
    before = before_the_user(render)
    first = before.removesuffix(_user_tag(render) or before)
    mark = "|".join(re.escape(token) for token in sorted(known.added, key=len, reverse=True))
    is_marks = re.fullmatch(rf"(?:\s|{mark})*" if mark else r"\s*", first)
    return max(first if is_marks else "", _through_own_mark(before, known), key=len)


def generation_prompt(render: Render) -> str:
    """Return the text that opens the assistant's turn.

    Raises:
        TemplateError: it is not at the end, or depends on the turns before it.
    """
    opening = _opened(render, _ONE_TURN)
    # Response tuning trains after this text alone, so all conversations must share it.
    for probe, messages in accepted(render).items():
        another = _opened(render, messages)
        if another != opening:
            later = "one after a system message" if probe == "a system message" else "a later one"
            raise TemplateError(
                f"the template opens the first answer with {opening!r} and {later} with "
                f"{another!r}, so there is no single opening to train answers after; use "
                "--template tulu"
            )
    return opening


def _opened(render: Render, messages: Sequence[Message]) -> str:
    without, with_opening = (render(messages, ask) for ask in (False, True))
    if not with_opening.startswith(without):
        raise TemplateError("the template's generation prompt is not at its end")
    return with_opening[len(without) :]


def _user_tag(render: Render) -> str | None:
    """Return what opens a user's turn, as a second turn shows it; None if it does not."""
    try:
        ended, going_on = render(_ANSWERED, False), render(_SECOND_QUESTION, True)
    except TemplateError:
        return None
    end = ended.rpartition(_REPLY)[2]
    between = going_on.rpartition(_REPLY)[2].partition(_SECOND)[0]
    return between[len(end) :] if between.startswith(end) else None


def _through_own_mark(before: str, known: Marks) -> str:
    """Return ``before`` up to the end of the tokenizer's own mark; empty if it has none."""
    for mark in (known.front, known.bos):
        # After words, EOS ends a turn, even if the tokenizer uses it as BOS too.
        words = r"\W*?" if mark == known.eos else r"(?s:.*?)"
        if mark and (match := re.match(words + re.escape(mark), before)):
            return match[0]
    return ""
