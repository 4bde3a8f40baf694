"""The address that clients see: the list of models, the key, and routing by the model's name.

Requests go on to the process that has the model. Added are only the template's stop strings, which
no server knows, and the sampling that a client leaves out: servers differ in what they take then.
"""

import asyncio
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from response_tuning import loopback
from response_tuning.errors import ConfigError

if TYPE_CHECKING:
    from httpx2 import AsyncClient
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

    Endpoint = Callable[[Request], Awaitable[Response]]

_Result = TypeVar("_Result")

BODY_BYTES = 16 * 2**20
"""A conversation of four million tokens."""
KEY_CHARACTERS = 16
"""A shorter key could be guessed over the network."""
_CONNECT_S = 5.0
_CHAT, _TEXT = "/v1/chat/completions", "/v1/completions"


@dataclass(frozen=True)
class ServedModel:
    """A model as clients know it, and where it runs."""

    name: str
    program: str
    """What runs it, such as ``llama.cpp``."""
    url: str
    """Address of its process, without a path."""
    identity: str = ""
    """Digest or hub id with commit; see ``models.location``."""
    stop: tuple[str, ...] = ()
    """Strings with which the template ends a reply."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a request that its process gets if the client sends none."""
    created: int = 0
    """Unix time in seconds."""


class Refusal(Exception):
    """A request that is answered with an error, in OpenAI's format."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def response(self) -> "Response":
        """Return it as JSON."""
        from starlette.responses import JSONResponse

        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": str(self), "type": kind, "param": None, "code": self.code}
        headers = {"WWW-Authenticate": "Bearer"} if self.status == 401 else None
        return JSONResponse({"error": error}, status_code=self.status, headers=headers)


def read_key(text: str, where: str) -> str:
    """Return the key that a file holds.

    Raises:
        ConfigError: it is no key; the message does not repeat it.
    """
    key = text.strip()
    if len(key) < KEY_CHARACTERS or not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(
            f"{where}: not one line of at least {KEY_CHARACTERS} characters without a space; make "
            "a key with: openssl rand -hex 32"
        )
    return key


def front_app(
    models: Sequence[ServedModel],
    backend_key: str,
    is_running: Callable[[str], bool],
    client_key: str | None = None,
    host: str = loopback.HOST,
) -> "Starlette":
    """Return the application.

    Args:
        models: What is served.
        backend_key: The key of the processes behind it.
        is_running: Says by a model's name whether its process runs.
        client_key: The key that clients have to send. Without one, only requests to this machine's
            own names and to ``host`` are answered.
        host: The address of this machine that it listens on.
    """
    from starlette.routing import Route

    front = _Front(models, backend_key, is_running)
    guarded = _checked(client_key)
    routes = [
        Route("/health", front.health),
        Route("/v1/models", guarded(front.models)),
        Route("/v1/models/{name:path}", guarded(front.model)),
        Route(_CHAT, guarded(front.forward), methods=["POST"]),
        Route(_TEXT, guarded(front.forward), methods=["POST"]),
    ]
    hosts = ["*"] if client_key else [*loopback.NAMES, host, f"[{host}]"]
    return loopback.guarded(routes, BODY_BYTES, hosts, front.connected)


def _checked(key: str | None) -> "Callable[[Endpoint], Endpoint]":
    """Refuse requests without the key, and answer a refusal as OpenAI's servers do."""

    def guard(endpoint: "Endpoint") -> "Endpoint":
        async def guarded(request: "Request") -> "Response":
            try:
                if key is not None:
                    _check_key(request, key)
                return await endpoint(request)
            except Refusal as refusal:
                return refusal.response()

        return guarded

    return guard


def _check_key(request: "Request", key: str) -> None:
    sent = request.headers.get("authorization", "")
    if not hmac.compare_digest(sent.encode(), f"Bearer {key}".encode()):
        raise Refusal(401, "the API key is missing or wrong", "invalid_api_key")


class _Front:
    """The response to each request."""

    def __init__(
        self, models: Sequence[ServedModel], backend_key: str, is_running: Callable[[str], bool]
    ) -> None:
        self._models = {model.name: model for model in models}
        self._key = backend_key
        self._is_running = is_running
        self._client: AsyncClient

    async def health(self, request: "Request") -> "Response":
        """Say which models run; HTTP 503 if one does not."""
        from starlette.responses import JSONResponse

        states = {name: self._is_running(name) for name in self._models}
        words = {name: "ok" if runs else "ended" for name, runs in states.items()}
        return JSONResponse({"models": words}, status_code=200 if all(states.values()) else 503)

    async def models(self, request: "Request") -> "Response":
        """List the models that are served."""
        from starlette.responses import JSONResponse

        return JSONResponse({"object": "list", "data": [*map(_entry, self._models.values())]})

    async def model(self, request: "Request") -> "Response":
        """Describe one model."""
        from starlette.responses import JSONResponse

        return JSONResponse(_entry(self._find(request.path_params["name"])))

    async def forward(self, request: "Request") -> "Response":
        """Pass a request on to the process of its model, and the reply back as it comes."""
        from httpx2 import HTTPError
        from starlette.background import BackgroundTask
        from starlette.responses import StreamingResponse

        path = request.url.path
        body = await _body(request)
        model = self._find(body.get("model"))
        if not self._is_running(model.name):
            raise Refusal(503, f"model '{model.name}' has ended; start rtune serve again")
        sent = self._client.build_request(
            "POST",
            f"{model.url}{path}",
            json=outgoing(body, model, chat=path == _CHAT),
            headers={"Authorization": f"Bearer {self._key}", "Accept-Encoding": "identity"},
        )
        try:
            reply = await unless_closed(request, self._client.send(sent, stream=True))
        except HTTPError as error:
            raise Refusal(502, f"model '{model.name}' does not answer: {error!r}") from error
        kept = {"Content-Type": reply.headers.get("content-type", "application/json")}
        return StreamingResponse(
            reply.aiter_raw(),
            status_code=reply.status_code,
            headers={**kept, "Cache-Control": "no-store"},
            background=BackgroundTask(reply.aclose),
        )

    @asynccontextmanager
    async def connected(self, app: "Starlette") -> AsyncIterator[None]:
        """Keep connections to the processes while the server runs."""
        import httpx2

        timeout = httpx2.Timeout(None, connect=_CONNECT_S)
        limits = httpx2.Limits(max_connections=None)
        async with httpx2.AsyncClient(
            trust_env=False, timeout=timeout, limits=limits
        ) as self._client:
            yield

    def _find(self, name: object) -> ServedModel:
        if name in self._models:
            return self._models[str(name)]
        if name is None and len(self._models) == 1:
            return next(iter(self._models.values()))
        served = ", ".join(self._models)
        raise Refusal(404, f"model '{name}' is not served; there are: {served}", "model_not_found")


def outgoing(body: Mapping[str, Any], model: ServedModel, *, chat: bool) -> dict[str, Any]:
    """Return the request that the process of ``model`` gets.

    Raises:
        Refusal: ``stop`` is neither a string nor strings.
    """
    given = {name: value for name, value in body.items() if value is not None}
    sent = {**model.defaults, **given, "model": model.name}
    stop = given.get("stop", [])
    strings = [stop] if isinstance(stop, str) else stop
    if not isinstance(strings, list) or not all(isinstance(each, str) for each in strings):
        raise Refusal(400, "stop: not a string or a list of strings")
    # A prompt that the client wrote itself ends where the client says.
    if both := [*dict.fromkeys([*strings, *(model.stop if chat else ())])]:
        sent["stop"] = both
    return sent


async def _body(request: "Request") -> dict[str, Any]:
    """Return a request's JSON object.

    A page of another site cannot send this content type without asking, which is refused.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "send JSON, with the header Content-Type: application/json")
    try:
        body = json.loads(await request.body())
    except ValueError as error:
        raise Refusal(400, f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise Refusal(400, "the body is not a JSON object")
    return body


async def unless_closed(request: "Request", work: Awaitable[_Result]) -> _Result:
    """Return what ``work`` returns, and cancel it if the client closes the connection before."""
    task = asyncio.ensure_future(work)
    closed = asyncio.ensure_future(request.receive())  # the body is read: next is the end
    try:
        await asyncio.wait({task, closed}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Refusal(499, "the client has closed the connection")
        return task.result()
    finally:
        closed.cancel()
        task.cancel()


def _entry(model: ServedModel) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "response-tuning",
        "served_by": model.program,
        "identity": model.identity,
    }
