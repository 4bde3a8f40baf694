"""The engine ``openai``: any server that speaks OpenAI's chat completions.

vLLM, Ollama, llama.cpp, ``transformers serve`` or a hosted judge; the server renders the prompt.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from response_tuning.artifacts import Completion, Request, Sampling
from response_tuning.errors import ConfigError, EngineError
from response_tuning.generate.engine import ENGINES, EngineConfig, answered, failed, one_line

if TYPE_CHECKING:
    from openai import OpenAI

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_CONNECT_S = 10.0
_NO_KEY = "none"


class _Message(BaseModel):
    content: str


class _Choice(BaseModel):
    message: _Message
    finish_reason: Literal["stop", "length"]


class _Reply(BaseModel):
    """What is needed of a reply; anything else about it is the server's business."""

    choices: list[_Choice] = Field(min_length=1)


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
        from openai import APIConnectionError, AuthenticationError, NotFoundError

        waiting = iter(requests)
        lost = 0
        pool = ThreadPoolExecutor(self._config.concurrency)
        try:
            with self._client() as client:

                def send(count: int) -> dict[Future[Completion], Request]:
                    return {
                        pool.submit(self._ask, client, request, sampling): request
                        for request in islice(waiting, count)
                    }

                flying = send(self._config.concurrency)
                while flying:
                    done, _ = wait(flying, return_when=FIRST_COMPLETED)
                    for future in done:
                        request = flying.pop(future)
                        try:
                            completion = future.result()
                            lost = 0
                        except (APIConnectionError, AuthenticationError, NotFoundError) as error:
                            lost += 1
                            completion = self._failed(request, sampling, _told(error))
                        yield completion
                        if lost >= max(3, self._config.concurrency):
                            yield from self._not_sent(waiting, sampling)
                        flying |= send(1)
        finally:
            # Whoever leaves early does not wait for replies that nobody will read.
            pool.shutdown(wait=False, cancel_futures=True)

    def _client(self) -> "OpenAI":
        from openai import OpenAI, Timeout

        seconds = self._config.timeout_s
        return OpenAI(
            api_key=self._api_key,
            base_url=self._config.base_url,
            max_retries=self._config.max_retries,
            timeout=Timeout(seconds, connect=min(seconds, _CONNECT_S)),
        )

    def _ask(self, client: "OpenAI", request: Request, sampling: Sampling) -> Completion:
        from openai import APIStatusError, AuthenticationError, NotFoundError, omit

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
        except (AuthenticationError, NotFoundError):
            raise
        except APIStatusError as error:
            return self._failed(request, sampling, _told(error))
        try:
            choice = _Reply.model_validate_json(raw.http_response.content).choices[0]
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "body"
            said = f"unusable reply: {where}: {first['msg']}, not {first['input']!r}"
            return self._failed(request, sampling, said)
        return answered(self, request, sampling, choice.message.content, choice.finish_reason)

    def _failed(self, request: Request, sampling: Sampling, said: str) -> Completion:
        if self._api_key != _NO_KEY:
            said = said.replace(self._api_key, "[key]")
        return failed(self, request, sampling, one_line(said))

    def _not_sent(self, waiting: Iterator[Request], sampling: Sampling) -> Iterator[Completion]:
        for request in waiting:
            yield failed(self, request, sampling, "not sent: the server did not answer others")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error} {error.__cause__ or ''}"


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
