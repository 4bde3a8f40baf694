"""What the page asks for, what a pane answers, and what is kept of both."""

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple, Protocol, TypeAlias

from pydantic import Field, field_validator

from response_tuning.artifacts import FinishReason, Message, Record, Sampling
from response_tuning.serve.playground.prompts import Stretch
from response_tuning.serve.playground.surprise import TokenReading

Adapter: TypeAlias = Literal["none", "on", "off"]
"""Whether an adapter took part in an answer; ``none``: the model has none."""
STOPPED = "stopped by the user"
"""``detail`` of an answer that the user ended, whose finish reason is ``other``."""


class Ask(Record):
    """One question to one pane."""

    pane: str
    template: str | None = None
    """None: the template that the pane was opened with."""
    adapter: Literal["on", "off"] = "on"
    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    sampling: Sampling = Sampling()
    begin_ids: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Tokens that the reply begins with: for example those before an alternative, and that."""
    begin_text: str = ""
    """Words that the reply begins with."""

    @field_validator("messages")
    @classmethod
    def _ends_with_a_question(cls, messages: tuple[Message, ...]) -> tuple[Message, ...]:
        if messages[-1].role != "user":
            raise ValueError("the last message must be the user's")
        return messages


PANE_NAME = r"\w[\w.-]{0,60}"
"""A pane's name is the name of a variant, and so of a folder."""


class PaneForm(Record):
    """What the page's form for a further pane holds."""

    model: Annotated[str, Field(min_length=1)]
    """A folder, a hub id, or a server's name for its model."""
    name: Annotated[str, Field(pattern=f"^({PANE_NAME})?$")] = ""
    """Empty: after the model."""
    url: str = ""
    """Address of the server; empty: the model is loaded here."""
    send_key: bool = False
    """Whether the server gets the key of the environment."""


class Started(NamedTuple):
    """What a pane is about to answer: which model, and the prompt as it is sent."""

    model: str
    """Identity of the model; an adapter that is off is no part of it."""
    template: str
    """Digest of the chat template's text; ``server`` if a server renders the prompt."""
    template_name: str
    adapter: Adapter
    stretches: tuple[Stretch, ...]
    """Empty if a server renders the prompt."""
    prompt_tokens: int | None


class Reply(NamedTuple):
    """What a pane answered."""

    text: str
    finish_reason: FinishReason
    detail: str = ""
    tokens: int | None = None
    """New tokens, the stop token included."""
    prompt_tokens: int | None = None
    ids: tuple[int, ...] = ()
    """The new tokens, where they are known."""
    answered_by: str = ""
    """Identity of the model that the weights in use were recognised as; empty if unknown. Of a
    server: its own name of the model."""
    readings: tuple[TokenReading, ...] = ()
    """Of a server that sends them; a model of this process is read when somebody asks."""


class Listener(Protocol):
    """Receives an answer as it is made, in the thread that makes it."""

    def started(self, start: Started) -> None:
        """Called once, before the first piece of text."""
        ...

    def text(self, piece: str) -> None:
        """Receive a piece of text."""
        ...

    def is_stopped(self) -> bool:
        """Whether nobody wants the rest."""
        ...


class Answer(Record):
    """One answer of a pane, as it is kept in the journal."""

    id: str
    pane: str
    model: str
    template: str
    template_name: str
    adapter: Adapter
    prompt: tuple[Message, ...]
    sampling: Sampling
    begin_ids: tuple[int, ...] = ()
    begin_text: str = ""
    response: str
    finish_reason: FinishReason
    detail: str = ""
    tokens: int | None = None
    prompt_tokens: int | None = None
    seconds: float
    first_text_s: float | None = None
    """Seconds until the first text; None if there was none."""
    ids: tuple[int, ...] = ()
    answered_by: str = ""
    readings: tuple[TokenReading, ...] = ()
    at: str
    """UTC, ISO 8601."""


OnAnswer: TypeAlias = Callable[[Answer], None]
