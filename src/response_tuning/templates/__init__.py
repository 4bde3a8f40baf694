"""Chat templates: the one renderer that training, generation and every server share.

A template is a Jinja file in this folder, saved into the tuned tokenizer. ``native`` stands for
the template that the tokenizer already has.
"""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from response_tuning.artifacts import Message, digest
from response_tuning.errors import TemplateError
from response_tuning.registry import unknown

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FOLDER = Path(__file__).parent
NATIVE = "native"
_ASK = Message(role="user", content="question")
_SAY = Message(role="assistant", content="answer")


def names() -> list[str]:
    """Return the names that ``install`` takes."""
    return sorted([*(file.stem for file in FOLDER.glob("*.jinja")), NATIVE])


def install(tokenizer: "PreTrainedTokenizerBase", name: str) -> None:
    """Make ``name`` the chat template of ``tokenizer``, in place.

    The template starts with the BOS token when, and only when, the tokenizer itself would put one
    in front of a text: a rendered prompt is then encoded without adding special tokens again.

    Raises:
        ConfigError: there is no such template.
        TemplateError: ``native`` is asked of a tokenizer that has none.
    """
    if name not in names():
        raise unknown("template", name, names())
    if name == NATIVE:
        if not tokenizer.chat_template:
            raise TemplateError(
                "template 'native': this tokenizer has no chat template; use --template tulu"
            )
        return
    text = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8").rstrip("\n")
    tokenizer.chat_template = ("{{ bos_token }}" if adds_bos(tokenizer) else "") + text


def adds_bos(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Say whether ``tokenizer`` puts its BOS token in front of a plain text."""
    ids = tokenizer("a").input_ids
    return tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id


class TurnEnd(NamedTuple):
    """What the template prints after an assistant's words."""

    stop_id: int
    """The token that ends the turn: training teaches it, generation stops at it."""
    rest: str
    """What follows it; separates turns and is not part of a training row."""


class Chat:
    """A tokenizer together with its chat template."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        if not tokenizer.chat_template:
            raise TemplateError("this tokenizer has no chat template; install one first")
        self.tokenizer = tokenizer

    def prompt(self, messages: Sequence[Message]) -> str:
        """Render ``messages`` up to where the assistant starts to speak, BOS included.

        Raises:
            TemplateError: the template refuses them, with its own words.
        """
        return self._render(messages, ask=True)

    def encode(self, rendered: str) -> list[int]:
        """Return the ids of rendered text; the template has already placed the special tokens."""
        ids: list[int] = self.tokenizer(rendered, add_special_tokens=False).input_ids
        return ids

    def decode(self, ids: list[int]) -> str:
        """Return the text of ``ids``, special tokens included."""
        text = self.tokenizer.decode(ids)
        assert isinstance(text, str)
        return text

    @cached_property
    def opening(self) -> str:
        """The assistant's opening alone, BOS included: all that response tuning conditions on."""
        without, with_opening = (self._render([_ASK], ask=ask) for ask in (False, True))
        if not with_opening.startswith(without):
            raise TemplateError("the template's generation prompt is not at its end")
        bos = self.tokenizer.bos_token
        starts_with_bos = bos is not None and without.startswith(bos)
        return (bos if starts_with_bos else "") + with_opening[len(without) :]

    @cached_property
    def turn_end(self) -> TurnEnd:
        """The stop token and what the template prints after it."""
        rendered = self._render([_ASK, _SAY], ask=False)
        tail = rendered[rendered.rindex(_SAY.content) + len(_SAY.content) :]
        ids = self.encode(tail)
        stop = self.decode(ids[:1]) if ids else ""
        if not stop or tail.strip() != stop or ids[0] not in self.tokenizer.added_tokens_decoder:
            raise TemplateError(
                f"the template ends an assistant's turn with {tail!r}, which is not one special "
                "token, so a model cannot learn from it where to stop; use --template tulu"
            )
        return TurnEnd(stop_id=ids[0], rest=tail[tail.index(stop) + len(stop) :])

    @property
    def digest(self) -> str:
        """Identity of the template's text, for manifests and completion keys."""
        return digest(self.tokenizer.chat_template)

    def _render(self, messages: Sequence[Message], *, ask: bool) -> str:
        from jinja2 import TemplateError as JinjaError

        try:
            text = self.tokenizer.apply_chat_template(
                [message.model_dump() for message in messages],
                add_generation_prompt=ask,
                tokenize=False,
            )
        except JinjaError as error:
            raise TemplateError(str(error)) from error
        assert isinstance(text, str)
        return text
