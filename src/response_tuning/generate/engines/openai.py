"""The engine ``openai``: any server that speaks OpenAI's chat completions.

vLLM, Ollama, llama.cpp, ``transformers serve`` or a hosted judge; the server renders the prompt.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from itertools import islice
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import ValidationError

from response_tuning.artifacts import Completion, Request, Sampling, cut
from response_tuning.configs import EngineConfig
from response_tuning.errors import ConfigError, EngineError
from response_tuning.generate import dialect
from response_tuning.generate.chat_reply import ChatReply, Unusable, filter_named, read_reply
from response_tuning.generate.engine import ENGINES, failed, one_line, recorded
from response_tuning.redaction import masked, redacted
from response_tuning.terminal import printable

if TYPE_CHECKING:
    from httpx2 import Response
    from openai import APIStatusError, OpenAI


_LOG = logging.getLogger(__name__)
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_CONNECT_S = 10.0
NO_KEY = "none"
"""What a server on this machine gets as a key if the user has none."""
KEY_CHARACTERS = 8
"""Shorter keys are no secrets: for servers that need none, users give words such as EMPTY."""
_WHOLE_REPLY = (200, 201)
"""HTTP statuses of a whole reply; 206 and its like carry a part, or nothing."""


class _Outcome(NamedTuple):
    completion: Completion
    reached: bool
    """Whether the server answered and accepted the key and the model."""


class OpenAIEngine:
    """Keeps ``concurrency`` requests in flight and retries each while it may still succeed.

    The SDK retries after a dropped connection, a timeout and HTTP 408, 409, 429 and 5xx. It waits
    0.5 s, doubled up to 8 s, or as long as ``Retry-After`` says (at most two minutes).
    """

    template = "server"

    def __init__(self, config: EngineConfig, api_key: str, proxy: str | None = None) -> None:
        self.model = f"{config.model}@{str(config.base_url).rstrip('/')}"
        self._config = config
        self._api_key = api_key
        self._proxy = proxy
        self._refused: frozenset[str] = frozenset()
        """Fields that the server rejects."""
        self._models: set[str] = set()
        """Other model names than the requested one, under which the server answered."""

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield completions as they arrive.

        When as many requests in a row as are in flight (at least three) found no server, or were
        rejected as unauthorised or unknown, the rest become error records without being sent.
        """
        tasks: SimpleQueue[Request | None] = SimpleQueue()
        arrived: SimpleQueue[_Outcome | None] = SimpleQueue()
        workers = min(self._config.concurrency, len(requests))
        for _ in range(workers):
            # Daemons, so that an interrupted run ends without waiting for a hanging server.
            Thread(target=self._work, args=(tasks, arrived, sampling), daemon=True).start()
        waiting = iter(requests)
        try:
            in_flight = _send(waiting, workers, tasks)
            unreached = 0  # in a row
            while in_flight:
                outcome = arrived.get()
                if outcome is None:
                    raise RuntimeError("a request failed unexpectedly: see the traceback above")
                # The caller saves the answer before the next request is sent: after a crash, no
                # more than ``concurrency`` requests are repeated.
                yield outcome.completion
                in_flight -= 1
                unreached = 0 if outcome.reached else unreached + 1
                if unreached >= max(3, self._config.concurrency):
                    yield from self._not_sent(waiting, sampling)
                in_flight += _send(waiting, 1, tasks)
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
                    arrived.put(self._answer(client, request, sampling))
        finally:
            arrived.put(None)  # read only if a bug ends the worker early

    def _client(self) -> "OpenAI":
        import httpx2
        from openai import OpenAI, Timeout

        from response_tuning.generate.connection import WholeReplies

        # A client of each worker's own: its transport serves one thread.
        seconds = self._config.timeout_s
        return OpenAI(
            api_key=self._api_key,
            base_url=self._config.base_url,
            max_retries=self._config.max_retries,
            timeout=Timeout(seconds, connect=min(seconds, _CONNECT_S)),
            default_headers={"Connection": "close", "Accept-Encoding": "identity"},
            http_client=httpx2.Client(
                transport=WholeReplies(seconds, self._proxy), follow_redirects=False
            ),
        )

    def _answer(self, client: "OpenAI", request: Request, sampling: Sampling) -> _Outcome:
        from openai import (
            APIConnectionError,
            APIError,
            APIStatusError,
            AuthenticationError,
            NotFoundError,
        )

        try:
            raw, refused = self._post(client, request, sampling)
        except APIStatusError as error:
            if 300 <= error.status_code < 400:
                return _Outcome(self._failed(request, sampling, redirect(error)), reached=False)
            if filter_ := filter_of(error):
                filtered = {
                    "response": "",
                    "finish_reason": "filtered",
                    "detail": self._mask(filter_),
                }
                return _Outcome(recorded(self, request, sampling, filtered), reached=True)
            # A wrong key or model name fails for every request; other errors may be the prompt's.
            rejected = isinstance(error, (AuthenticationError, NotFoundError))
            message = f"{type(error).__name__}: {error}"
            return _Outcome(self._failed(request, sampling, message), reached=not rejected)
        except APIError as error:
            lost = isinstance(error, APIConnectionError)
            message = f"{type(error).__name__}: {error} {error.__cause__ or ''}"
            return _Outcome(self._failed(request, sampling, message), reached=not lost)
        return _Outcome(self._read(raw, request, sampling, refused), reached=True)

    def _post(
        self, client: "OpenAI", request: Request, sampling: Sampling
    ) -> tuple["Response", frozenset[str]]:
        """Send a request without the fields that the server rejects, and remember these.

        Returns the reply and the rejected fields.

        Raises:
            APIError: there is no reply.
        """
        from openai import BadRequestError, UnprocessableEntityError

        refused = self._refused
        while True:
            sent = dialect.fields(request, sampling, refused)
            try:
                raw = client.chat.completions.with_raw_response.create(
                    model=str(self._config.model), **sent
                )
            except (BadRequestError, UnprocessableEntityError) as error:
                field = dialect.refused_field(sent, error.param, str(error))
                if field is None or filter_of(error) or not dialect.can_omit(field, sampling):
                    raise
                refused |= {field}
                continue
            # Only now: a rejection that no retry confirmed may be about something else.
            self._refused |= refused
            return raw.http_response, refused

    def _read(
        self, raw: "Response", request: Request, sampling: Sampling, refused: frozenset[str]
    ) -> Completion:
        if raw.status_code not in _WHOLE_REPLY:
            return self._failed(request, sampling, f"unusable reply: HTTP {raw.status_code}")
        try:
            reply = read_reply(raw.content, sampling.max_new_tokens, self._mask)
        except ValidationError as error:
            first = error.errors()[0]  # the others tend to follow from it
            where = ".".join(map(str, first["loc"])) or "body"
            message = f"unusable reply: {where}: {first['msg']}, not {first['input']!r}"
            return self._failed(request, sampling, message)
        except Unusable as error:
            return self._failed(request, sampling, f"unusable reply: {error}")
        self._warn_of_other_model(reply.model)
        return recorded(self, request, sampling, _outcome(reply, sampling, refused))

    def _mask(self, text: str) -> str:
        """Remove the key from a text that a server sent, before a record stores it."""
        return masked(text, self._api_key) if len(self._api_key) >= KEY_CHARACTERS else text

    def _warn_of_other_model(self, model: str) -> None:
        """Warn once of each other model that answers in place of the requested one."""
        requested = str(self._config.model).lower()
        ours, other = requested.rpartition("/")[2], model.lower().rpartition("/")[2]
        # Servers shorten names, or append a date: one may be the beginning of the other.
        if not model or other.startswith(ours) or ours.startswith(other) or model in self._models:
            return
        self._models.add(model)
        # Escaped here too: a user's own log handler may print to a terminal.
        name = printable(model)
        _LOG.warning("requested model '%s', but the server answers as '%s'", requested, name)

    def _failed(self, request: Request, sampling: Sampling, message: str) -> Completion:
        secret = self._api_key if self._api_key != NO_KEY else ""
        # Control characters are spelled out in the record itself: other tools print it too.
        return failed(self, request, sampling, one_line(printable(redacted(message, secret))))

    def _not_sent(self, waiting: Iterator[Request], sampling: Sampling) -> Iterator[Completion]:
        for request in waiting:
            yield failed(self, request, sampling, "not sent: the server did not answer others")


def _send(waiting: Iterator[Request], count: int, tasks: "SimpleQueue[Request | None]") -> int:
    """Queue up to ``count`` requests, and return how many there were."""
    sent = list(islice(waiting, count))
    for request in sent:
        tasks.put(request)
    return len(sent)


def _outcome(reply: ChatReply, sampling: Sampling, refused: frozenset[str]) -> dict[str, Any]:
    """Return the fields of a record for a reply."""
    response, finish = reply.response, reply.finish_reason
    kept = cut(response, sampling.stop)  # some servers ignore ``stop``
    if kept is not None and finish != "filtered":
        response, finish = kept, "stop"
    return {
        "response": response,
        "finish_reason": finish,
        "detail": "; ".join(filter(None, (reply.detail, *dialect.notes(refused, sampling)))),
        "reasoning": reply.reasoning,
        **reply.usage._asdict(),
    }


def redirect(error: "APIStatusError") -> str:
    """Name the host that a server redirects to; the rest of the address may repeat the request."""
    try:
        target = urlsplit(error.response.headers.get("location", ""))
        host = f"{target.hostname}:{target.port}" if target.port else target.hostname
    except ValueError:
        host = None
    return (
        f"HTTP {error.status_code}: the server redirects to {host or 'another path'}; nothing was "
        "sent there: give the final address with --base-url"
    )


def filter_of(error: "APIStatusError") -> str:
    """Return the name of the filter that blocked a prompt; empty if none did."""
    if error.status_code not in (400, 403, 422, 451):
        return ""
    body = error.body if isinstance(error.body, dict) else {}
    inner = body.get("innererror") or body.get("inner_error")
    codes = [error.code, error.type, inner.get("code") if isinstance(inner, dict) else ""]
    metadata = body.get("metadata")  # OpenRouter
    if isinstance(metadata, dict) and metadata.get("flagged_input"):
        codes.append("moderation")
    return next(filter(None, map(filter_named, codes)), "")


class Access(NamedTuple):
    """How a server is reached, besides its address."""

    api_key: str
    """``none`` for a server on this machine that needs no key."""
    proxy: str | None


@ENGINES.register("openai")
def connect(config: EngineConfig) -> OpenAIEngine:
    """Check the settings; nothing is sent before the first request.

    Raises:
        ConfigError: the address or the model's name is missing or invalid.
        EngineError: the environment variable with the key is not set.
    """
    return OpenAIEngine(config, *access(config))


def access(config: EngineConfig) -> Access:
    """Return the key and the proxy for the server of ``config``.

    Raises:
        ConfigError: the address or the model's name is missing or invalid.
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
            "has no effect; save it in the served tokenizer"
        )
    # A key is required unless the server is on this machine: others answer 401 to every request.
    host = _host(config.base_url)
    api_key = os.environ.get(config.api_key_env, "").strip()
    if not (api_key.isascii() and api_key.isprintable()):
        raise EngineError(
            f"engine 'openai': environment variable {config.api_key_env} does not hold a key"
        )
    if not api_key and host not in _LOOPBACK:
        raise EngineError(
            f"engine 'openai': environment variable {config.api_key_env} is not set; set it to the "
            f"key for {host}, or name another variable with --api-key-env"
        )
    return Access(api_key or NO_KEY, _proxy(config.base_url))


def _host(url: str) -> str:
    try:
        address = urlsplit(url)
        _ = address.port  # reading it validates it
        if address.hostname and address.scheme in ("http", "https"):
            return address.hostname
    except ValueError:
        pass
    # The message does not repeat the address: it may hold a password.
    raise ConfigError(
        "engine 'openai': --base-url must be an http(s) address such as http://127.0.0.1:8000/v1"
    )


def _proxy(url: str) -> str | None:
    from response_tuning.generate.connection import proxy_for

    proxy = proxy_for(url)
    if proxy is not None and urlsplit(proxy).scheme not in ("http", "https"):
        raise EngineError(
            "engine 'openai': the environment's proxy for https is not an http proxy; unset it, "
            "or put the server's host into NO_PROXY"
        )
    return proxy
