"""A chat request for a model in this package's own process.

A field that would change the answer and is not supported is refused, and not passed over.
"""

import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from response_tuning.artifacts import Message, Sampling

WITHOUT_CONTEXT = 2048
"""New tokens at most, for a model without a limit, if the client names none."""
_Zero = Annotated[float, Field(ge=0, le=0)]
_One = Annotated[float, Field(ge=1, le=1)]
_Stop = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class _Turn(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part] | None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None

    def message(self) -> Message:
        content = self.content or ""
        text = content if isinstance(content, str) else "\n".join(part.text for part in content)
        # OpenAI's newer name of the same role.
        return Message(role="system" if self.role == "developer" else self.role, content=text)


class _StreamOptions(BaseModel):
    include_usage: bool | None = None


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]


class _Unsupported(BaseModel):
    """Fields that change an answer, at the value that changes nothing."""

    n: Annotated[int, Field(ge=1, le=1)] | None = None
    presence_penalty: _Zero | None = None
    frequency_penalty: _Zero | None = None
    repetition_penalty: _One | None = None
    repeat_penalty: _One | None = None
    min_p: _Zero | None = None
    top_k: Annotated[int, Field(ge=-1, le=0)] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: _Zero | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    functions: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    response_format: _Form | None = None


class _Passive(BaseModel):
    """Fields that change no answer."""

    user: Any = None
    metadata: Any = None
    store: Any = None
    service_tier: Any = None
    parallel_tool_calls: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None


class ChatRequest(_Unsupported, _Passive):
    """The body of a request."""

    model_config = ConfigDict(extra="forbid")

    model: str
    messages: Annotated[list[_Turn], Field(min_length=1)]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """The older name."""
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    stop: _Stop | list[_Stop] | None = None

    def conversation(self) -> list[Message]:
        """Return the messages."""
        return [turn.message() for turn in self.messages]

    def sampling(self, context: int | None) -> Sampling:
        """Return how the answer is drawn; without a seed, another one each time."""
        stop = self.stop or []
        return Sampling(
            max_new_tokens=self.max_completion_tokens
            or self.max_tokens
            or context
            or WITHOUT_CONTEXT,
            temperature=self.temperature or 0.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            seed=secrets.randbelow(2**32) if self.seed is None else self.seed,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
        )

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends in the counts of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)
