"""Chat templates: the one renderer that training, generation and every server share.

A template is a Jinja text, saved into the tokenizer: a file of this folder, one of the user's, or
what a prompt for in-context learning becomes. ``native`` stands for the template that the tokenizer
already has, and ``native:NAME`` for one of several that it has by name. Where a template ends a
turn in text instead of a special token, it carries the strings that end a reply:
``{% set stop_strings = [...] %}``.
"""

import json
import logging
from collections.abc import Callable, Sequence
from functools import cache, cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from response_tuning.artifacts import Message, digest
from response_tuning.errors import TemplateError
from response_tuning.registry import Registry, unknown
from response_tuning.templates import frame
from response_tuning.templates.continuation import continuation_tokenizer
from response_tuning.templates.in_context import (
    BYTE_ORDER_MARK,
    FOLDER,
    NAMED,
    InContext,
    read_in_context,
    read_text,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase


logger = logging.getLogger(__name__)

NATIVE = "native"
_IN_CONTEXT = (".txt", ".yaml", ".yml")
_ASKED, _SAID = "question", "answer"


TEMPLATES: Registry[Callable[[], str]] = Registry("template")
"""Name -> a function that returns the Jinja text."""


def _rendered(prompt: Callable[[], InContext]) -> str:
    return prompt().jinja()


for _file in sorted(FOLDER.glob("*.jinja")):
    TEMPLATES.register(_file.stem)(partial(read_text, _file))
for _name, _prompt in NAMED.items():
    TEMPLATES.register(_name)(partial(_rendered, _prompt))


def names() -> list[str]:
    """Return the names that ``install`` takes."""
    return sorted([*TEMPLATES.names(), NATIVE])


def check(name: str) -> None:
    """Refuse what is neither the name nor the file of a template.

    Raises:
        ConfigError: there is no such template, or its settings are impossible.
        TemplateError: its file cannot be used.
    """
    if not is_native(name):
        jinja(name)


def identity(name: str) -> str:
    """Return what a template is: another text has another identity, whatever its name."""
    return name if is_native(name) else digest(jinja(name))


def is_native(name: str) -> bool:
    """Whether ``name`` stands for a template that the tokenizer already has."""
    return name.partition(":")[0] == NATIVE


def jinja(name: str) -> str:
    """Return the text of a template, by its name or from a file of the user's.

    A file is a chat template (``.jinja``), a prompt of URIAL's (``.txt``), or the settings of
    ``in_context.InContext`` (``.yaml``).

    Raises:
        ConfigError: there is no such template, or its settings are impossible.
        TemplateError: its file cannot be used.
    """
    path = Path(name)
    if name in TEMPLATES.names():
        text = TEMPLATES.get(name)()
    elif path.suffix in _IN_CONTEXT:
        text = read_in_context(path).jinja()
    elif path.suffix == ".jinja":
        text = read_text(path)
    else:
        raise unknown("template", name, names())
    if not text.strip():
        raise TemplateError(f"{name}: the template is empty")
    return text.rstrip("\n")


def install(tokenizer: "PreTrainedTokenizerBase", name: str) -> None:
    """Make a template, by its name or its file, the chat template of ``tokenizer``, in place.

    The template starts with what the tokenizer itself puts in front of a text, for most the BOS
    token, unless it already prints that: a rendered prompt is then encoded without adding special
    tokens again.

    Raises:
        ConfigError: there is no such template.
        TemplateError: the tokenizer has no such template of its own, or a file is unusable.
    """
    if is_native(name):
        tokenizer.chat_template = _own(tokenizer, name)
        _warn_of_changes(name, Chat(tokenizer))
        return
    text = jinja(name)
    tokenizer.chat_template = text
    chat = Chat(tokenizer)
    mark = chat.decode(front(tokenizer))
    if not chat.has_own_mark() and mark:
        placed = "bos_token" if mark == tokenizer.bos_token else json.dumps(mark)
        tokenizer.chat_template = f"{{{{ {placed} }}}}{text}"
    _warn_of_changes(name, chat)


def _warn_of_changes(name: str, chat: "Chat") -> None:
    try:
        probe = frame.changes_a_message(chat._render)
    except TemplateError:  # what it cannot render at all is refused where it is used
        return
    if probe is not None:
        _warn_once(name, probe)


@cache
def _warn_once(name: str, probe: str) -> None:
    logger.warning(
        "template '%s': in a conversation with %s, it leaves out or changes a message", name, probe
    )


def _own(tokenizer: "PreTrainedTokenizerBase", name: str) -> str:
    """Return the tokenizer's own template, or the one of several that ``name`` asks for."""
    there: str | dict[str, str] | None = tokenizer.chat_template
    wanted = name.partition(":")[2]
    if not there:
        raise TemplateError(
            f"template '{name}': this tokenizer has no chat template; use --template tulu"
        )
    if isinstance(there, str):
        there = {"": there}
    chosen = wanted if wanted or "" in there else "default"
    if chosen in there:
        return there[chosen].lstrip(BYTE_ORDER_MARK)
    known = ", ".join(f"'{each}'" for each in sorted(there))
    raise TemplateError(
        f"template '{name}': this tokenizer has a single chat template; use --template {NATIVE}"
        if "" in there
        else f"template '{name}': this tokenizer has the chat templates {known}, and none called "
        f"'{chosen}'; choose one, such as --template {NATIVE}:{min(there)}"
    )


def front(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the ids that ``tokenizer`` puts in front of every plain text, such as BOS."""
    marked: list[int] = tokenizer("a").input_ids
    plain: list[int] = tokenizer("a", add_special_tokens=False).input_ids
    starts = range(len(marked) - len(plain) + 1)
    found = (start for start in starts if marked[start : start + len(plain)] == plain)
    return marked[: next(found, 0)]


def adds_bos(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Say whether ``tokenizer`` puts its BOS token in front of a plain text."""
    return front(tokenizer)[:1] == [tokenizer.bos_token_id]


class TurnEnd(NamedTuple):
    """What the template prints after an assistant's words."""

    stop_id: int
    """The token that ends the turn: training teaches it, generation stops at it."""
    rest: str
    """What follows it; separates turns and is not part of a training row."""


class Chat:
    """A tokenizer together with its chat template."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        if not isinstance(tokenizer.chat_template, str) or not tokenizer.chat_template:
            raise TemplateError("this tokenizer has no chat template; install one first")
        self.tokenizer = tokenizer

    def prompt(self, messages: Sequence[Message]) -> str:
        """Render ``messages`` up to where the assistant starts to speak, BOS included.

        Raises:
            TemplateError: the template refuses them, with its own words.
        """
        return self._render(messages, True)

    def encode(self, rendered: str) -> list[int]:
        """Return the ids of rendered text; the template has already placed the special tokens."""
        ids: list[int] = self.tokenizer(rendered, add_special_tokens=False).input_ids
        return ids

    def encode_reply(self, text: str) -> list[int]:
        """Return the ids of what the assistant says after a prompt, as in training."""
        ids: list[int] = self._continuation.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        """Return the text of ``ids``, special tokens included."""
        text = self.tokenizer.decode(ids)
        assert isinstance(text, str)
        return text

    @cached_property
    def marks(self) -> str:
        """What every prompt begins with, before any turn: BOS, or marks like ``[gMASK]<sop>``.

        A system prompt that the template writes by itself is a turn, and a client can replace it.
        """
        return frame.before_the_turns(self._render, self._known)

    def has_own_mark(self) -> bool:
        """Whether every prompt begins with what the tokenizer puts in front of a text, or BOS.

        Raises:
            TemplateError: some prompts do and others do not, or one has it twice.
        """
        known = self._known
        has_mark = frame.has_own_mark(self._render, known)
        for mark in {known.front, known.bos or ""}:
            frame.refuse_two_marks(self._render, mark)
        return has_mark

    @cached_property
    def _known(self) -> frame.Marks:
        tokenizer = self.tokenizer
        added = tuple(token.content for token in tokenizer.added_tokens_decoder.values())
        own = self.decode(front(tokenizer))
        return frame.Marks(own, tokenizer.bos_token, tokenizer.eos_token, added)

    @cached_property
    def opening(self) -> str:
        """The assistant's opening alone, marks included: all that response tuning conditions on.

        Raises:
            TemplateError: the template has none, or several.
        """
        return self.marks + frame.generation_prompt(self._render)

    @cached_property
    def turn_end(self) -> TurnEnd:
        """The stop token and what the template prints after it."""
        asked = Message(role="user", content=_ASKED)
        said = Message(role="assistant", content=_SAID)
        rendered = self._render([asked, said], False)
        _, found, tail = rendered.rpartition(_SAID)
        if not found:
            raise TemplateError("the template does not print what an assistant says; use another")
        ids = self.encode(tail)
        stop = self.decode(ids[:1]) if ids else ""
        if not stop or tail.strip() != stop or ids[0] not in self.tokenizer.added_tokens_decoder:
            raise TemplateError(
                f"the template ends an assistant's turn with {tail!r}, which is not one special "
                "token, so a model cannot learn from it where to stop; use --template tulu"
            )
        return TurnEnd(stop_id=ids[0], rest=tail[tail.index(stop) + len(stop) :])

    @cached_property
    def stop_strings(self) -> tuple[str, ...]:
        """Strings that end a reply: ``stop_strings`` of the template; most have none.

        Raises:
            TemplateError: they are no list of strings.
        """
        from jinja2 import Environment, nodes
        from jinja2 import TemplateError as JinjaError

        text = str(self.tokenizer.chat_template)
        if "stop_strings" not in text:
            return ()
        try:
            found = [
                line.node.as_const()
                for line in Environment().parse(text).find_all(nodes.Assign)
                if isinstance(line.target, nodes.Name)
                and line.target.name == "stop_strings"
                and isinstance(line.node, nodes.Expr)
            ]
        except (JinjaError, nodes.Impossible) as error:
            raise TemplateError(f"the chat template's stop_strings: {error}") from error
        strings = [string for listed in found for string in listed]
        if not all(isinstance(string, str) and string for string in strings):
            raise TemplateError(f"the chat template's stop_strings are no strings: {strings}")
        return tuple(strings)

    @cached_property
    def closing(self) -> list[int]:
        """Ids of what ends a reply: the stop token, or else the first of the stop strings.

        Raises:
            TemplateError: the template has neither.
        """
        if self.stop_strings:
            return self.encode_reply(self.stop_strings[0])
        return [self.turn_end.stop_id]

    @property
    def digest(self) -> str:
        """Identity of the template's text, for manifests and completion keys."""
        return digest(self.tokenizer.chat_template)

    @cached_property
    def _continuation(self) -> "Tokenizer":
        return continuation_tokenizer(self.tokenizer)

    def _render(self, messages: Sequence[Message], ask: bool) -> str:
        from jinja2 import TemplateError as JinjaError
        from jinja2 import TemplateSyntaxError

        try:
            text = self.tokenizer.apply_chat_template(
                [message.model_dump() for message in messages],
                add_generation_prompt=ask,
                tokenize=False,
            )
        except (JinjaError, TypeError, ValueError, KeyError) as error:
            own_words = type(error) is JinjaError  # what raise_exception raises
            line = f" in line {error.lineno}" if isinstance(error, TemplateSyntaxError) else ""
            why = str(error) if own_words else f"the chat template fails{line}: {error}"
            raise TemplateError(why) from error
        assert isinstance(text, str)
        return text
