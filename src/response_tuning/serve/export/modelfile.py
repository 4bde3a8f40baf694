"""A chat template in Go's template language, and the Modelfile for Ollama.

Ollama does not read Jinja. Without a template of its own, it sends the bare prompt and says
nothing. The pieces that a chat template prints are measured by rendering conversations, and written
as a Go template. A template whose conversations the pieces do not rebuild is refused.
"""

import json
import re
from collections.abc import Sequence
from itertools import pairwise, product
from typing import NamedTuple

from response_tuning.artifacts import Message
from response_tuning.errors import TemplateError
from response_tuning.templates import Chat, adds_bos

_MARKS = {"system": "zwsystemwz", "user": "zwuserwz", "assistant": "zwanswerwz"}
_ROLES = ("system", "user", "assistant")
_WORD = re.compile(r"\w+:?")


class Turn(NamedTuple):
    """What is printed around a message."""

    before: str
    after: str


class Layout(NamedTuple):
    """The pieces of a chat template."""

    preface: str
    """In front of every conversation, without the BOS that the runtime adds."""
    user: Turn
    assistant: Turn
    opening: str
    """Of the answer to come."""
    system: Turn | None
    """Of a system turn; None where its text goes into the user's message after it."""
    fold: str
    """Between a folded system message and the user's; empty if there is a system turn."""

    def render(self, messages: Sequence[Message]) -> str:
        """Return a prompt, as the Go template renders it."""
        text, folded = self.preface, ""
        for message in messages:
            if message.role == "system" and self.system is None:
                folded += message.content + self.fold if message.content else ""
                continue
            turn = {"system": self.system, "user": self.user}.get(message.role, self.assistant)
            assert turn is not None
            is_user = message.role == "user"
            text += turn.before + (folded if is_user else "") + message.content + turn.after
            folded = "" if is_user else folded
        return text + self.opening


def layout(chat: Chat) -> Layout:
    """Measure the pieces of a chat template.

    Raises:
        TemplateError: no such pieces rebuild what it prints.
    """
    bos = chat.tokenizer.bos_token if adds_bos(chat.tokenizer) else ""
    asked = chat.render(_messages(["user"]), False)
    opening = chat.prompt(_messages(["user"]))[len(asked) :]
    first, middle, after_user = _between(
        _render(chat, ["user", "assistant", "user"]), ["user", "assistant", "user"]
    )
    # How a turn of the assistant ends is only seen without a turn behind it.
    answered = chat.render(_messages(["user", "assistant"]), False)
    end_of_assistant = answered.rpartition(_MARKS["assistant"])[2]
    before_user = middle[1].removeprefix(end_of_assistant)
    end_of_user = after_user.removesuffix(opening)
    found = Layout(
        preface=first.removesuffix(before_user).removeprefix(bos),
        user=Turn(before_user, end_of_user),
        assistant=Turn(middle[0].removeprefix(end_of_user), end_of_assistant),
        opening=opening,
        system=None,
        fold="",
    )
    found = _with_system(found, chat, bos)
    _check(found, chat, bos)
    return found


def go_template(found: Layout) -> str:
    """Return a Go template that prints what the chat template prints."""
    folds = found.system is None and found.fold
    system = (
        f'{{{{ if .Content }}}}{{{{ $system = printf "%s%s%s" $system .Content '
        f"{_quoted(found.fold)} }}}}{{{{ end }}}}"
        if folds
        else _turn(found.system or Turn("", ""))
    )
    user = _turn(found.user, "{{ $system }}" if folds else "")
    lines = [
        '{{ $system := "" }}' if folds else "",
        _printed(found.preface),
        "{{ range .Messages }}",
        '{{ if eq .Role "system" }}' + system,
        '{{ else if eq .Role "user" }}' + user + ('{{ $system = "" }}' if folds else ""),
        '{{ else if eq .Role "assistant" }}' + _turn(found.assistant),
        "{{ end }}{{ end }}",
        _printed(found.opening),
    ]
    return "".join(lines)


def modelfile(chat: Chat, gguf: str, context: int | None) -> str:
    """Return a Modelfile: the weights, the template, what ends a reply, and greedy answers.

    Raises:
        TemplateError: Go's template language has no equal of the chat template.
    """
    found = layout(chat)
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{_checked(go_template(found))}"""']
    lines += [f"PARAMETER stop {_parameter(stop)}" for stop in stops(chat, found)]
    lines += ["PARAMETER temperature 0"]
    lines += [f"PARAMETER num_ctx {context}"] if context else []
    return "\n".join(lines) + "\n"


def stops(chat: Chat, found: Layout) -> list[str]:
    """Return what ends a reply in Ollama: the stop token, and the tag of a user's next turn.

    The tag comes second: a model that misses its stop token begins a turn of the user.
    """
    strings = [*chat.stop_strings]
    if not strings:
        strings = [chat.decode([chat.turn_end.stop_id])]
    tag = found.user.before.strip()
    if _WORD.fullmatch(tag):  # a reply may say the word `user`; on a line of its own it is a turn
        tag = f"\n{found.user.before}"
    return list(dict.fromkeys([*strings, *([tag] if tag else [])]))


def _with_system(found: Layout, chat: Chat, bos: str) -> Layout:
    try:
        text = _render(chat, ["system", "user"]).removeprefix(bos)
    except TemplateError:
        return found
    before, middle, _ = _between(text, ["system", "user"])
    between = middle[0]
    if (
        between.endswith(found.user.before)
        and found.user.before
        and not before.endswith(found.user.before)
    ):
        inside = before.removeprefix(found.preface)
        return found._replace(system=Turn(inside, between.removesuffix(found.user.before)))
    return found._replace(fold=between)


def _check(found: Layout, chat: Chat, bos: str) -> None:
    """Compare the pieces with the template in every conversation of up to five messages."""
    for length in range(1, 6):
        for roles in product(_ROLES, repeat=length):
            if not _is_usual(roles):
                continue
            try:
                expected = _render(chat, roles).removeprefix(bos)
            except TemplateError:
                continue
            if found.render(_messages(roles)) != expected:
                raise TemplateError(
                    f"the chat template cannot be written for Ollama: of the turns "
                    f"{', '.join(roles)} it prints {expected[:200]!r}, which is not made of one "
                    "piece for each turn; export with --to gguf, and use llama.cpp"
                )


def _is_usual(roles: Sequence[str]) -> bool:
    """Whether a conversation ends in the user's turn, and nobody speaks twice."""
    return roles[-1] == "user" and all(a != b for a, b in pairwise(roles))


def _messages(roles: Sequence[str]) -> list[Message]:
    return [Message(role=role, content=_MARKS[role]) for role in roles]  # type: ignore[arg-type]


def _render(chat: Chat, roles: Sequence[str]) -> str:
    return chat.render(_messages(roles), True)


def _between(text: str, roles: Sequence[str]) -> tuple[str, list[str], str]:
    """Return the text before the first mark, those between two, and that after the last one."""
    parts = []
    for role in roles:
        part, found, text = text.partition(_MARKS[role])
        if not found:
            raise TemplateError("the chat template leaves out or changes a message")
        parts.append(part)
    return parts[0], parts[1:], text


def _turn(turn: Turn, inside: str = "") -> str:
    return f"{_printed(turn.before)}{inside}{{{{ .Content }}}}{_printed(turn.after)}"


def _printed(text: str) -> str:
    """Return a Go action that prints a text as a string, in which braces mean nothing."""
    return f"{{{{ {_quoted(text)} }}}}" if text else ""


def _quoted(text: str) -> str:
    """Return a string of Go; those of JSON are a part of its, but for pairs of surrogates."""
    return json.dumps(text, ensure_ascii=False)


def _parameter(text: str) -> str:
    """Return a value of a Modelfile, which knows no escapes; three quotes hold line ends."""
    return f'"""{text}"""' if "\n" in text or '"' in text else f'"{text}"'


def _checked(template: str) -> str:
    if '"""' in template:
        raise TemplateError('the chat template holds """, which ends a TEMPLATE of a Modelfile')
    return template
