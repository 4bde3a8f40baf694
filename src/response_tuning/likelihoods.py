"""A prompt with a response, and how probable a model finds the response.

``models/likelihood.py`` computes the numbers, and ``probe/`` uses them.
"""

import math
from typing import NamedTuple

from response_tuning.artifacts import Message


class Pair(NamedTuple):
    """A response and its prompt."""

    prompt: tuple[Message, ...]
    """Empty: the prefix is the assistant's opening alone, as in response tuning."""
    response: str


class Likelihood(NamedTuple):
    """The log-probabilities that a model gives a response, in nats."""

    total: float
    """log p(response | prompt): the sum over its tokens, without the end."""
    tokens: int
    """Tokens of the response, without the end."""
    ending: float
    """log p(end | prompt, response), of the stop token or the closing string."""
    early: float
    """Mean probability of ending before each token of the response, which is too early: of the
    stop token, or of the closing string's first token."""

    @property
    def per_token(self) -> float:
        """The mean over the response's tokens."""
        return self.total / self.tokens if self.tokens else math.nan


class Unscored(NamedTuple):
    """Why a pair cannot be scored."""

    reason: str
