"""The engine ``openai``: any server that speaks OpenAI's chat completions.

vLLM, Ollama, llama.cpp, ``transformers serve`` or a hosted judge; the server renders the prompt.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from response_tuning.artifacts import Completion, Request, Sampling
from response_tuning.errors import ConfigError, EngineError
from response_tuning.generate.engine import (
    ENGINES,
    UNSAID,
    EngineConfig,
    Usage,
    answered,
    cut,
    failed,
    one_line,
)

if TYPE_CHECKING:
    from openai import OpenAI

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_CONNECT_S = 10.0
_NO_KEY = "none"


class _Part(BaseModel):
    model_config = ConfigDict(defer_build=True)


class _Message(_Part):
    content: str


class _Choice(_Part):
    message: _Message
    finish_reason: Literal["stop", "length"]


class _Usage(_Part):
    completion_tokens: int | None = None
    prompt_tokens: int | None = None


class _Reply(_Part):
    """What is needed of a reply; anything else about it is the server's business."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


class _Outcome(NamedTuple):
    completion: Completion
    reached: bool
    """Whether the server is there and lets us in."""


class OpenAIEngine:
    """Keeps ``concurrency`` requests in flight and sends each again while it may still succeed.

    The SDK repeats a request after a cut connection, a time-out and HTTP 408, 409, 429 and 5xx,
    after 0.5 s doubled up to 8 s or as long as ``Retry-After`` asks (at most two minutes).
    """

    template = "server"

    def __init__(self, config: EngineConfig, api_key: str) -> None:
        self.model = f"{config.model}@{str(config.base_url).rstrip('/')}"
        self._config = config
        self._api_key = api_key

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield completions as they arrive.

        Once as many requests in a row as are in flight (at least three) found no server, or were
        refused as unauthorised or unknown, the rest are error records without having been sent.
        """
        tasks: SimpleQueue[Request | None] = SimpleQueue()
        arrived: SimpleQueue[_Outcome | None] = SimpleQueue()
        workers = min(self._config.concurrency, len(requests))
        for _ in range(workers):
            # Daemons, so that an interrupted run ends without waiting for a server that hangs.
            Thread(target=self._work, args=(tasks, arrived, sampling), daemon=True).start()
        waiting = iter(requests)
        try:
            flying = _send(waiting, workers, tasks)
            lost = 0
            while flying:
                outcome = arrived.get()
                if outcome is None:
                    raise RuntimeError("a request failed unexpectedly: see the traceback above")
                # The answer is taken before the next request is sent: a crash repeats no more
                # than ``concurrency`` requests.
                yield outcome.completion
                flying -= 1
                lost = 0 if outcome.reached else lost + 1
                if lost >= max(3, self._config.concurrency):
                    yield from self._not_sent(waiting, sampling)
                flying += _send(waiting, 1, tasks)
        finally:
            for _ in range(workers):
                tasks.put(None)

    def _work(
        self,
        tasks: "SimpleQueue[Request | None]",
        arrived: "SimpleQueue[_Outcome | None]",
        sampling: Sampling,
    ) -> None:
        try:
            with self._client() as client:
                while (request := tasks.get()) is not None:
                    arrived.put(self._ask(client, request, sampling))
        finally:
            arrived.put(None)  # read only if a bug ends the worker before its time

    def _client(self) -> "OpenAI":
        from openai import OpenAI, Timeout

        seconds = self._config.timeout_s
        return OpenAI(
            api_key=self._api_key,
            base_url=self._config.base_url,
            max_retries=self._config.max_retries,
            timeout=Timeout(seconds, connect=min(seconds, _CONNECT_S)),
        )

    def _ask(self, client: "OpenAI", request: Request, sampling: Sampling) -> _Outcome:
        from openai import APIConnectionError, APIError, AuthenticationError, NotFoundError, omit

        try:
            raw = client.chat.completions.with_raw_response.create(
                model=str(self._config.model),
                messages=[{"role": m.role, "content": m.content} for m in request.prompt],  # type: ignore[misc]
                # Not max_completion_tokens, which several open servers do not know.
                max_tokens=sampling.max_new_tokens,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                seed=sampling.seed,
                stop=list(sampling.stop) or omit,
            )
        except APIError as error:
            lost = isinstance(error, (APIConnectionError, AuthenticationError, NotFoundError))
            said = f"{type(error).__name__}: {error} {error.__cause__ or ''}"
            return _Outcome(self._failed(request, sampling, said), reached=not lost)
        return _Outcome(self._read(raw.http_response.content, request, sampling), reached=True)

    def _read(self, body: bytes, request: Request, sampling: Sampling) -> Completion:
        try:
            reply = _Reply.model_validate_json(body)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "body"
            said = f"unusable reply: {where}: {first['msg']}, not {first['input']!r}"
            return self._failed(request, sampling, said)
        choice = reply.choices[0]
        usage = UNSAID
        if reply.usage:
            usage = Usage(reply.usage.completion_tokens, reply.usage.prompt_tokens)
        said = choice.message.content
        kept = cut(said, sampling.stop)  # some servers take no notice of ``stop``
        if kept is not None:
            return answered(self, request, sampling, kept, "stop", usage)
        return answered(self, request, sampling, said, choice.finish_reason, usage)

    def _failed(self, request: Request, sampling: Sampling, said: str) -> Completion:
        if self._api_key != _NO_KEY:
            said = said.replace(self._api_key, "[key]")
        return failed(self, request, sampling, one_line(said))

    def _not_sent(self, waiting: Iterator[Request], sampling: Sampling) -> Iterator[Completion]:
        for request in waiting:
            yield failed(self, request, sampling, "not sent: the server did not answer others")


def _send(waiting: Iterator[Request], count: int, tasks: "SimpleQueue[Request | None]") -> int:
    """Hand over up to ``count`` requests, and return how many there were."""
    sent = list(islice(waiting, count))
    for request in sent:
        tasks.put(request)
    return len(sent)


@ENGINES.register("openai")
def connect(config: EngineConfig) -> OpenAIEngine:
    """Check the settings; the server is first spoken to when it is asked something.

    Raises:
        ConfigError: the address or the model's name is missing or unusable.
        EngineError: the environment variable with the key is not set.
    """
    if config.model is None or config.base_url is None:
        raise ConfigError(
            "engine 'openai': name the model and the server, such as --model NAME "
            "--base-url http://127.0.0.1:8000/v1"
        )
    if config.template is not None:
        raise ConfigError(
            f"engine 'openai': the server renders the prompt, so template '{config.template}' "
            "has no effect: save it in the served tokenizer"
        )
    address = urlsplit(config.base_url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ConfigError(f"engine 'openai': no http(s) address: {config.base_url}")
    if address.username or address.password or address.query:
        # Not repeated in the message: the address is part of every record.
        raise ConfigError("engine 'openai': --base-url must not hold a key; use --api-key-env")
    api_key = os.environ.get(config.api_key_env, "").strip()
    if not (api_key.isascii() and api_key.isprintable()):
        raise EngineError(f"engine 'openai': {config.api_key_env} does not hold a key")
    if not api_key and address.hostname not in _LOOPBACK:
        raise EngineError(
            f"engine 'openai': environment variable {config.api_key_env} is not set; put the key "
            f"for {address.hostname} there, or name another with --api-key-env"
        )
    return OpenAIEngine(config, api_key or _NO_KEY)
