"""The engine ``openai``: any server that speaks OpenAI's chat completions.

vLLM, Ollama, llama.cpp, ``transformers serve`` or a hosted judge; the server renders the prompt.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from pydantic import ValidationError

from response_tuning.artifacts import Completion, Request, Sampling, cut
from response_tuning.configs import EngineConfig
from response_tuning.generate import dialect
from response_tuning.generate.access import KEY_CHARACTERS, NO_KEY, access
from response_tuning.generate.chat_reply import ChatReply, Unusable, filter_named, read_reply
from response_tuning.generate.engine import ENGINES, failed, one_line, recorded
from response_tuning.generate.replicas import FAULT, LOST, STRIKES, Replicas, Trouble
from response_tuning.redaction import masked, redacted
from response_tuning.terminal import printable

if TYPE_CHECKING:
    from ssl import SSLContext

    from httpx2 import Response
    from openai import APIStatusError, OpenAI


_LOG = logging.getLogger(__name__)
_CONNECT_S = 10.0
_LOOK_UP_S = 0.5
_WHOLE_REPLY = (200, 201)
"""HTTP statuses of a whole reply; 206 and its like carry a part, or nothing."""


class _Outcome(NamedTuple):
    completion: Completion
    reached: bool
    """Whether the server answered and accepted the key and the model."""
    trouble: Trouble | None = None
    """Why another server may do better."""


class OpenAIEngine:
    """Keeps ``concurrency`` requests in flight and retries each while it may still succeed.

    The SDK retries after a dropped connection, a timeout and HTTP 408, 409, 429 and 5xx. It waits
    0.5 s, doubled up to 8 s, or as long as ``Retry-After`` says (at most two minutes). Of several
    servers, a request goes to the one with the least to do, and after a failure to another: see
    ``generate.replicas``.
    """

    template = "server"

    def __init__(self, config: EngineConfig, api_key: str, proxy: str | None = None) -> None:
        self.model = f"{config.model}@{str(config.base_url).rstrip('/')}"
        self._config = config
        self._api_key = api_key
        self._proxy = proxy
        self._servers = Replicas([str(config.base_url), *config.replicas])
        self._refused: frozenset[str] = frozenset()
        """Fields that the server rejects."""
        self._models: set[str] = set()
        """Other model names than the requested one, under which the server answered."""

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield completions as they arrive.

        When as many requests in a row as are in flight (at least three) found no server, or were
        rejected as unauthorised or unknown, the rest become error records without being sent.
        """
        from httpx2 import create_ssl_context

        # Once, and not in each worker: reading the certificates takes 26 ms of processor time.
        certificates = create_ssl_context()
        tasks: SimpleQueue[Request | None] = SimpleQueue()
        arrived: SimpleQueue[_Outcome | None] = SimpleQueue()
        workers = min(self._config.concurrency, len(requests))
        for _ in range(workers):
            # Daemons, so that an interrupted run ends without waiting for a hanging server.
            work = partial(self._work, tasks, arrived, sampling, certificates)
            Thread(target=work, daemon=True).start()
        waiting = iter(requests)
        try:
            in_flight = _send(waiting, workers, tasks)
            unreached = 0  # in a row
            while in_flight:
                outcome = _next(arrived)
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
        certificates: "SSLContext",
    ) -> None:
        try:
            with self._client(certificates) as client:
                while (request := tasks.get()) is not None:
                    arrived.put(self._answered(client, request, sampling))
        finally:
            arrived.put(None)  # read only if a bug ends the worker early

    def _answered(self, client: "OpenAI", request: Request, sampling: Sampling) -> _Outcome:
        """Ask servers until one answers, or the request has failed too often."""
        failed: list[str] = []  # addresses
        while True:
            server = self._servers.take(failed)
            if server is None:
                message = f"no server is left: {self._servers.why_none()}"
                return _Outcome(self._failed(request, sampling, message), reached=False)
            began = time.monotonic()
            outcome = self._answer(client.with_options(base_url=server.url), request, sampling)
            seconds = time.monotonic() - began if outcome.completion.error is None else None
            trouble = outcome.trouble if self._servers.several else None
            self._servers.give_back(server, trouble, seconds)
            if trouble is None:
                return outcome
            if not trouble.refused:
                failed.append(server.url)
            if len(failed) > self._config.max_retries:
                return outcome

    def _client(self, certificates: "SSLContext") -> "OpenAI":
        import httpx2
        from openai import OpenAI, Timeout

        from response_tuning.generate.connection import WholeReplies

        # A client of each worker's own: its transport serves one thread.
        seconds = self._config.timeout_s
        return OpenAI(
            api_key=self._api_key,
            base_url=self._config.base_url,
            # With several servers, the next attempt is another server's.
            max_retries=0 if self._servers.several else self._config.max_retries,
            timeout=Timeout(seconds, connect=min(seconds, _CONNECT_S)),
            default_headers={"Connection": "close", "Accept-Encoding": "identity"},
            http_client=httpx2.Client(
                transport=WholeReplies(seconds, self._proxy, certificates), follow_redirects=False
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
            raw, left_out = self._post(client, request, sampling)
        except APIStatusError as error:
            if 300 <= error.status_code < 400:
                moved = redirect(error)
                refused = Trouble(refused=moved)
                return _Outcome(self._failed(request, sampling, moved), False, refused)
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
            record = self._failed(request, sampling, message)
            trouble = (
                Trouble(refused=record.error or "") if rejected else trouble_of(error.response)
            )
            return _Outcome(record, not rejected, trouble)
        except APIError as error:
            lost = isinstance(error, APIConnectionError)
            message = f"{type(error).__name__}: {error} {error.__cause__ or ''}"
            trouble = Trouble(LOST) if lost else None
            return _Outcome(self._failed(request, sampling, message), not lost, trouble)
        return self._read(raw, request, sampling, left_out)

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
    ) -> _Outcome:
        if raw.status_code not in _WHOLE_REPLY:
            message = f"unusable reply: HTTP {raw.status_code}"
            return _Outcome(self._failed(request, sampling, message), reached=True)
        try:
            reply = read_reply(raw.content, sampling.max_new_tokens, self._mask)
        except ValidationError as error:
            first = error.errors()[0]  # the others tend to follow from it
            where = ".".join(map(str, first["loc"])) or "body"
            message = f"unusable reply: {where}: {first['msg']}, not {first['input']!r}"
            return _Outcome(self._failed(request, sampling, message), reached=True)
        except Unusable as error:
            message = f"unusable reply: {error}"
            return _Outcome(self._failed(request, sampling, message), reached=True)
        if self._is_other(reply.model):
            if self._servers.several:  # the others may have the right one
                other = f"it answers as '{one_line(reply.model)}', not as '{self._config.model}'"
                record = self._failed(request, sampling, other)
                return _Outcome(record, False, Trouble(refused=record.error or ""))
            self._warn_of_other_model(reply.model)
        record = recorded(self, request, sampling, _outcome(reply, sampling, refused))
        return _Outcome(record, reached=True)

    def _mask(self, text: str) -> str:
        """Remove the key from a text that a server sent, before a record stores it."""
        return masked(text, self._api_key) if len(self._api_key) >= KEY_CHARACTERS else text

    def _is_other(self, model: str) -> bool:
        """Whether a server answers under another model's name than the requested one."""
        requested = str(self._config.model).lower()
        ours, other = requested.rpartition("/")[2], model.lower().rpartition("/")[2]
        # Servers shorten names, or append a date: one may be the beginning of the other.
        return bool(model) and not (other.startswith(ours) or ours.startswith(other))

    def _warn_of_other_model(self, model: str) -> None:
        """Warn once of each other model that answers in place of the requested one."""
        if model in self._models:
            return
        self._models.add(model)
        # Escaped here too: a user's own log handler may print to a terminal.
        requested, name = str(self._config.model).lower(), printable(model)
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


def _next(arrived: "SimpleQueue[_Outcome | None]") -> _Outcome | None:
    """Return what arrives next.

    Without a timeout, a Ctrl-C that comes just before the wait is noticed after it.
    """
    while True:
        with suppress(Empty):
            return arrived.get(timeout=_LOOK_UP_S)


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


def trouble_of(response: "Response") -> Trouble | None:
    """Return what an error reply says about the server; None if it is about the request."""
    status = response.status_code
    if status not in (408, 409, 429) and status < 500:
        return None
    try:
        rest = float(response.headers.get("retry-after", ""))
    except ValueError:  # none, or a date
        rest = None
    return Trouble(STRIKES if status == 429 else FAULT, rest)


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


@ENGINES.register("openai")
def connect(config: EngineConfig) -> OpenAIEngine:
    """Check the settings; nothing is sent before the first request.

    Raises:
        ConfigError: the address or the model's name is missing or invalid.
        EngineError: the environment variable with the key is not set.
    """
    return OpenAIEngine(config, *access(config))
