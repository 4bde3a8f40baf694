"""A reply and what it replies to, and how probable a model finds it.

What scores a pair (``generate``) and what makes something of the numbers (``grade``) meet here.
"""

import math
from typing import NamedTuple

from response_tuning.artifacts import Message


class Pair(NamedTuple):
    """A reply, and what it replies to."""

    prompt: tuple[Message, ...]
    """Empty: nothing but the assistant's opening, which is response tuning's prefix."""
    response: str


class Likelihood(NamedTuple):
    """What a model gives a reply, in nats."""

    total: float
    """log p(response | prompt): the sum over its tokens, without what ends it."""
    tokens: int
    ending: float
    """log p(end | prompt, response), of the stop token or of the closing string."""
    early: float
    """Mean probability of ending at the response's own tokens, where it is too early: that of the
    stop token, or of the closing string's first token."""

    @property
    def per_token(self) -> float:
        """The mean over the response's tokens."""
        return self.total / self.tokens if self.tokens else math.nan


class Unscored(NamedTuple):
    """A pair that cannot be scored."""

    reason: str
