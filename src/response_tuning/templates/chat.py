"""The renderer that training, generation and every server share: a tokenizer's chat template."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from response_tuning.artifacts import Message, digest
from response_tuning.errors import TemplateError
from response_tuning.templates import frame
from response_tuning.templates.continuation import continuation_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase


UNPREDICTED = (
    "nothing precedes the response (no opening in the template, no BOS), so nothing predicts its "
    "first token"
)
"""Why a response is neither trained on nor scored."""
_QUESTION, _ANSWER = "question", "answer"


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


def stop_strings(template: str) -> tuple[str, ...]:
    """Return ``stop_strings`` of a template's text: strings that end a reply; most have none.

    Raises:
        TemplateError: they are not a list of strings.
    """
    from jinja2 import Environment, nodes
    from jinja2 import TemplateError as JinjaError

    # Read from the syntax tree: rendering would run the user's template only for a constant.
    if "stop_strings" not in template:
        return ()
    try:
        lists = [
            line.node.as_const()
            for line in Environment().parse(template).find_all(nodes.Assign)
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


class TurnEnd(NamedTuple):
    """What the template prints after the content of an assistant's message."""

    stop_id: int
    """The token that ends the turn: training teaches it, generation stops at it."""
    rest: str
    """The text after it, which separates turns and is not part of a training row."""
    gap: str = ""
    """White space between content and stop token, as in Llama-2's `` </s>``.

    It is no part of a row either: a reply would end in it, and the template would print it again.
    """


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
        return self.render(messages, True)

    def render(self, messages: Sequence[Message], ask: bool) -> str:
        """Render ``messages``, and the opening of the assistant's turn if ``ask`` is true.

        Raises:
            TemplateError: the template refuses them, or fails.
        """
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
        return frame.before_the_turns(self.render, self._known)

    def has_own_mark(self) -> bool:
        """Whether every prompt begins with the tokenizer's own mark, or BOS.

        Raises:
            TemplateError: some prompts do and others do not, or one has it twice.
        """
        known = self._known
        has_mark = frame.has_own_mark(self.render, known)
        for mark in {known.front, known.bos or ""}:
            frame.refuse_two_marks(self.render, mark)
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
        return self.marks + frame.generation_prompt(self.render)

    @cached_property
    def turn_end(self) -> TurnEnd:
        """The stop token and what the template prints after it."""
        question = Message(role="user", content=_QUESTION)
        answer = Message(role="assistant", content=_ANSWER)
        # What a template prints after a known answer is how it ends a turn.
        _, printed, tail = self.render([question, answer], False).rpartition(_ANSWER)
        if not printed:
            raise TemplateError("the template does not print the assistant's messages; use another")
        # Alone: white space in front of it may be tokens of its own.
        stop = tail.strip()
        ids = self.encode(stop)
        added = self.tokenizer.added_tokens_decoder
        if not stop or self.decode(ids[:1]) != stop or ids[0] not in added:
            raise TemplateError(
                f"the template ends an assistant's turn with {tail!r}, which is not one special "
                "token, so a model cannot learn from it where to stop; use --template tulu"
            )
        gap, _, rest = tail.partition(stop)
        return TurnEnd(ids[0], rest, gap)

    @cached_property
    def stop_strings(self) -> tuple[str, ...]:
        """Strings that end a reply: ``stop_strings`` of the template; most templates have none.

        Raises:
            TemplateError: ``stop_strings`` is not a list of strings.
        """
        return stop_strings(str(self.tokenizer.chat_template))

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
