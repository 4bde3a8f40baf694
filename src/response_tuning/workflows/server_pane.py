"""A pane of the playground whose model is on an OpenAI-compatible server."""

import math
from typing import Any

from response_tuning.configs import EngineConfig
from response_tuning.errors import ConfigError
from response_tuning.generate.streaming import Streamed, StreamedToken, StreamingServer
from response_tuning.serve.playground.records import STOPPED, Answer, Ask, Listener, Reply, Started
from response_tuning.serve.playground.surprise import Alternative, TokenReading

TEMPLATE = "server"
"""What stands for the template, which is the server's own."""


class ServerPane:
    """A pane of a served model; nothing is sent before the first question.

    Raises:
        ConfigError: the address or the model's name is missing or invalid.
        EngineError: the environment variable with the key is not set.
    """

    def __init__(self, name: str, config: EngineConfig) -> None:
        self.name = name
        self._config = config
        self._server = StreamingServer(config)

    def about(self) -> dict[str, Any]:
        """Return what the page shows of the pane before it answers; the key is no part of it."""
        return {
            "name": self.name,
            "kind": "server",
            "source": self._config.base_url,
            "served_model": self._config.model,
            "model": self._identity,
            "template": TEMPLATE,
            "template_digest": TEMPLATE,
            "has_adapter": False,
            "key_variable": self._config.api_key_env,
        }

    @property
    def _identity(self) -> str:
        return f"{self._config.model}@{str(self._config.base_url).rstrip('/')}"

    def answer(self, ask: Ask, listener: Listener) -> Reply:
        """Ask the server, and pass its answer on as it arrives.

        Raises:
            ConfigError: the question asks for what only a model of this process can do.
            EngineError: the server gives no answer.
        """
        if ask.begin_ids or ask.begin_text:
            raise ConfigError(f"{self.name}: a server cannot be told how its reply begins")
        if ask.template not in (None, TEMPLATE):
            raise ConfigError(f"{self.name}: the server renders the prompt by its own template")
        listener.started(
            Started(
                model=self._identity,
                template=TEMPLATE,
                template_name=TEMPLATE,
                adapter="none",
                stretches=(),
                prompt_tokens=None,
            )
        )
        streamed = self._server.stream(
            ask.messages, ask.sampling, listener.text, listener.is_stopped
        )
        return _reply(streamed)

    def read(self, answer: Answer) -> tuple[TokenReading, ...]:
        """Return what the server said about each token.

        Raises:
            ConfigError: it said nothing.
        """
        if not answer.readings:
            raise ConfigError(f"{self.name}: the server gave no log-probabilities")
        return answer.readings


def _reply(streamed: Streamed) -> Reply:
    return Reply(
        text=streamed.text,
        finish_reason=streamed.finish_reason if streamed.whole else "other",
        detail=streamed.detail if streamed.whole else STOPPED,
        tokens=streamed.tokens,
        prompt_tokens=streamed.prompt_tokens,
        answered_by=streamed.model,
        readings=tuple(map(_reading, streamed.readings)),
    )


def _reading(token: StreamedToken) -> TokenReading:
    texts = [text for text, _ in token.alternatives]
    return TokenReading(
        id=None,
        text=token.text,
        probability=math.exp(token.logprob),
        rank=texts.index(token.text) + 1 if token.text in texts else None,
        alternatives=tuple(
            Alternative(None, text, math.exp(logprob)) for text, logprob in token.alternatives
        ),
    )
