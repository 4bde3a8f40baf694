"""Chat templates: the one renderer that training, generation and every server share.

A template is a Jinja text that is saved into the tokenizer: a file of this folder, a file of the
user's, or a prompt for in-context learning as a template. ``native`` names the template that the
tokenizer already has, and ``native:NAME`` one of several. A template that ends a turn with text
instead of a special token carries the strings that end a reply: ``{% set stop_strings = [...] %}``.
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
_QUESTION, _ANSWER = "question", "answer"


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


def for_tuning() -> list[str]:
    """Return the names of templates that a model can be tuned with: those without stop strings."""
    return [name for name in TEMPLATES.names() if "stop_strings" not in jinja(name)]


def check(name: str) -> None:
    """Refuse a name that is neither a template nor the file of one.

    Raises:
        ConfigError: there is no such template, or its settings are impossible.
        TemplateError: its file cannot be used.
    """
    if not is_native(name):
        jinja(name)


def identity(name: str) -> str:
    """Return the identity of a template: its text decides, and not its name."""
    return name if is_native(name) else digest(jinja(name))


def is_native(name: str) -> bool:
    """Whether ``name`` means a template that the tokenizer already has."""
    return name.partition(":")[0] == NATIVE


def jinja(name: str) -> str:
    """Return the text of a template, by its name or from a file of the user.

    A file is a chat template (``.jinja``), a prompt in URIAL's format (``.txt``), or settings of
    ``in_context.InContext`` (``.yaml``).

    Raises:
        ConfigError: there is no such template, or its settings are impossible.
        TemplateError: its file cannot be used.
    """
    path = Path(name)
    # Names before files, so that a file called `tulu` in the working folder changes nothing.
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
    """Set the chat template of ``tokenizer``, in place, to a template by its name or file.

    Unless the template already prints it, the tokenizer's own mark (for most, the BOS token) is
    put in front: a rendered prompt is then encoded without adding special tokens again.

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
    # As a variable where one exists: the text then is the same for every tokenizer.
    if not chat.has_own_mark() and mark:
        placed = "bos_token" if mark == tokenizer.bos_token else json.dumps(mark)
        tokenizer.chat_template = f"{{{{ {placed} }}}}{text}"
    _warn_of_changes(name, chat)


def _warn_of_changes(name: str, chat: "Chat") -> None:
    try:
        probe = frame.changes_a_message(chat._render)
    except TemplateError:  # a template that cannot render at all is refused where it is used
        return
    if probe is not None:
        _warn_once(name, probe)


@cache
def _warn_once(name: str, probe: str) -> None:
    logger.warning(
        "template '%s': in a conversation with %s, it leaves out or changes a message", name, probe
    )


def _own(tokenizer: "PreTrainedTokenizerBase", name: str) -> str:
    """Return the tokenizer's own template, or the one of several that ``name`` selects."""
    own: str | dict[str, str] | None = tokenizer.chat_template
    wanted = name.partition(":")[2]
    if not own:
        raise TemplateError(
            f"template '{name}': this tokenizer has no chat template; use --template tulu"
        )
    # A tokenizer has one template or several with names; transformers' usual one is `default`.
    if isinstance(own, str):
        own = {"": own}
    chosen = wanted if wanted or "" in own else "default"
    if chosen in own:
        return own[chosen].lstrip(BYTE_ORDER_MARK)
    known = ", ".join(f"'{each}'" for each in sorted(own))
    raise TemplateError(
        f"template '{name}': this tokenizer has a single chat template; use --template {NATIVE}"
        if "" in own
        else f"template '{name}': this tokenizer has the chat templates {known}, and none called "
        f"'{chosen}'; choose one, such as --template {NATIVE}:{min(own)}"
    )


def front(tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return the ids that ``tokenizer`` puts in front of every plain text, such as BOS."""
    marked: list[int] = tokenizer("a").input_ids
    plain: list[int] = tokenizer("a", add_special_tokens=False).input_ids
    starts = range(len(marked) - len(plain) + 1)
    matching = (start for start in starts if marked[start : start + len(plain)] == plain)
    return marked[: next(matching, 0)]


def adds_bos(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether ``tokenizer`` puts its BOS token in front of a plain text."""
    return front(tokenizer)[:1] == [tokenizer.bos_token_id]


class TurnEnd(NamedTuple):
    """What the template prints after the content of an assistant's message."""

    stop_id: int
    """The token that ends the turn: training teaches it, generation stops at it."""
    rest: str
    """The text after it, which separates turns and is not part of a training row."""


class Chat:
    """A tokenizer together with its chat template."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        if not isinstance(tokenizer.chat_template, str) or not tokenizer.chat_template:
            raise TemplateError("this tokenizer has no chat template; install one first")
        self.tokenizer = tokenizer

    def prompt(self, messages: Sequence[Message]) -> str:
        """Render ``messages`` and the opening of the assistant's turn, BOS included.

        Raises:
            TemplateError: the template refuses them; the message is its own.
        """
        return self._render(messages, True)

    def encode(self, rendered: str) -> list[int]:
        """Return the ids of rendered text; the template has already placed the special tokens."""
        ids: list[int] = self.tokenizer(rendered, add_special_tokens=False).input_ids
        return ids

    def encode_reply(self, text: str) -> list[int]:
        """Return the ids of a reply to a prompt, as in training."""
        ids: list[int] = self.continuation.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        """Return the text of ``ids``, special tokens included."""
        text = self.tokenizer.decode(ids)
        assert isinstance(text, str)
        return text

    @cached_property
    def marks(self) -> str:
        """The start of every prompt, before any turn: BOS, or marks like ``[gMASK]<sop>``.

        A system prompt that the template writes by itself is a turn, because a client can replace
        it.
        """
        return frame.before_the_turns(self._render, self._known)

    def has_own_mark(self) -> bool:
        """Whether every prompt begins with the tokenizer's own mark, or BOS.

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
        question = Message(role="user", content=_QUESTION)
        answer = Message(role="assistant", content=_ANSWER)
        # What a template prints after a known answer is how it ends a turn.
        _, printed, tail = self._render([question, answer], False).rpartition(_ANSWER)
        if not printed:
            raise TemplateError("the template does not print the assistant's messages; use another")
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
        """Strings that end a reply: ``stop_strings`` of the template; most templates have none.

        Raises:
            TemplateError: ``stop_strings`` is not a list of strings.
        """
        from jinja2 import Environment, nodes
        from jinja2 import TemplateError as JinjaError

        # Read from the syntax tree: rendering would run the user's template only for a constant.
        text = str(self.tokenizer.chat_template)
        if "stop_strings" not in text:
            return ()
        try:
            lists = [
                line.node.as_const()
                for line in Environment().parse(text).find_all(nodes.Assign)
                if isinstance(line.target, nodes.Name)
                and line.target.name == "stop_strings"
                and isinstance(line.node, nodes.Expr)
            ]
        except (JinjaError, nodes.Impossible) as error:
            raise TemplateError(f"the chat template's stop_strings: {error}") from error
        strings = [string for listed in lists for string in listed]
        if not all(isinstance(string, str) and string for string in strings):
            raise TemplateError(f"the chat template's stop_strings are not strings: {strings}")
        return tuple(strings)

    @cached_property
    def closing(self) -> list[int]:
        """Ids of the end of a reply: the stop token, or else the first of the stop strings.

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
    def continuation(self) -> "Tokenizer":
        """The tokenizer of text that continues a prompt; special tokens in it are plain text."""
        return continuation_tokenizer(self.tokenizer)

    @cached_property
    def prompt_continuation(self) -> "Tokenizer":
        """The tokenizer of a prompt's later parts; special tokens in it are special tokens."""
        later = continuation_tokenizer(self.tokenizer)
        later.encode_special_tokens = False
        return later

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
            is_its_own = type(error) is JinjaError  # raised by the template's raise_exception
            line = f" in line {error.lineno}" if isinstance(error, TemplateSyntaxError) else ""
            why = str(error) if is_its_own else f"the chat template fails{line}: {error}"
            raise TemplateError(why) from error
        assert isinstance(text, str)
        return text
