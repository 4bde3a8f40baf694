"""Notes prompts in which a template leaves out or changes a message."""

from collections.abc import Sequence

from response_tuning.artifacts import Message
from response_tuning.templates import Chat, frame

ALTERED = "follow prompts in which the template leaves out or changes a message"


class Witness(Chat):
    """A chat that renders the prompts of one objective and watches them."""

    def __init__(self, chat: Chat) -> None:
        super().__init__(chat.tokenizer)
        self.__dict__.update(chat.__dict__)  # what the chat has computed about its template
        self._altered = False

    def prompt(self, messages: Sequence[Message]) -> str:
        """Render ``messages`` as any chat does, and note whether each one's text is there."""
        rendered = super().prompt(messages)
        self._altered = self._altered or frame.left_out(rendered, messages)
        return rendered

    def take(self) -> bool:
        """Return whether a prompt since the last call lacks a message's text."""
        altered, self._altered = self._altered, False
        return altered
