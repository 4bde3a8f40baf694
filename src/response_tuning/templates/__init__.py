"""Chat templates by name, and how one becomes a tokenizer's own; ``chat`` renders it.

A template is a Jinja text that is saved into the tokenizer: a file of this folder, a file of the
user's, or a prompt for in-context learning as a template. ``native`` names the template that the
tokenizer already has, and ``native:NAME`` one of several. A template that ends a turn with text
instead of a special token carries the strings that end a reply: ``{% set stop_strings = [...] %}``.
"""

import json
import logging
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from response_tuning.artifacts import digest
from response_tuning.errors import TemplateError
from response_tuning.recipe import shipped
from response_tuning.registry import Registry, unknown
from response_tuning.templates import frame
from response_tuning.templates.chat import UNPREDICTED, Chat, TurnEnd, adds_bos, front, stop_strings
from response_tuning.templates.in_context import (
    BYTE_ORDER_MARK,
    FOLDER,
    NAMED,
    InContext,
    read_in_context,
    read_text,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


__all__ = [
    "NATIVE",
    "TEMPLATES",
    "UNPREDICTED",
    "Chat",
    "TurnEnd",
    "adds_bos",
    "check",
    "for_tuning",
    "front",
    "identity",
    "install",
    "is_native",
    "jinja",
    "names",
    "stop_strings",
]

logger = logging.getLogger(__name__)

NATIVE = "native"
_IN_CONTEXT = (".txt", ".yaml", ".yml")


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
    path = shipped(Path(name))
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


def _warn_of_changes(name: str, chat: Chat) -> None:
    try:
        probe = frame.changes_a_message(chat.render)
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
