"""A model in this process behind OpenAI's chat completions: the answers are those of ``generate``.

It is the model of the engine ``hf``, so prompts, stop strings, the context's limit and sampling are
the same. One answer is generated at a time; other requests wait in their order.
"""

import asyncio
import hmac
import json
import secrets
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from response_tuning import loopback
from response_tuning.artifacts import Sampling
from response_tuning.errors import EngineError, TemplateError
from response_tuning.models.local import Draft, Ending, LocalModel
from response_tuning.serve.server.chat_request import ChatRequest
from response_tuning.serve.server.front import BODY_BYTES, Refusal, unless_closed
from response_tuning.serve.streaming import stream_reply

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response


def local_app(local: LocalModel, name: str, key: str) -> "Starlette":
    """Return the application that serves ``local`` as ``name`` to clients that have the key."""
    from starlette.routing import Route

    server = _Server(local, name, key)
    routes = [
        Route("/health", server.health),
        Route("/v1/chat/completions", server.chat, methods=["POST"]),
        Route("/v1/completions", server.text, methods=["POST"]),
    ]
    return loopback.guarded(routes, BODY_BYTES)


class _Server:
    """The response to each request."""

    def __init__(self, local: LocalModel, name: str, key: str) -> None:
        self._local = local
        self._name = name
        self._key = key
        self._turn = asyncio.Lock()

    async def health(self, request: "Request") -> "Response":
        """Say that the model is loaded."""
        from starlette.responses import JSONResponse

        return JSONResponse({"status": "ok"})

    async def text(self, request: "Request") -> "Response":
        """Refuse a prompt without messages."""
        return Refusal(404, f"'{self._name}' answers /v1/chat/completions alone").response()

    async def chat(self, request: "Request") -> "Response":
        """Answer a conversation, as one reply or as a stream."""
        from starlette.responses import JSONResponse, StreamingResponse

        try:
            self._check_key(request)
            asked = _parsed(await request.body())
            reply = self._begin(asked)
        except Refusal as refusal:
            return refusal.response()
        if asked.stream:
            events = reply.events(self._turn, with_usage=asked.with_usage)
            return StreamingResponse(events, media_type="text/event-stream")
        try:
            return JSONResponse(await unless_closed(request, reply.whole(self._turn)))
        except Refusal as refusal:
            return refusal.response()

    def _check_key(self, request: "Request") -> None:
        sent = request.headers.get("authorization", "")
        if not hmac.compare_digest(sent.encode(), f"Bearer {self._key}".encode()):
            raise Refusal(401, "the key of this process is missing", "invalid_api_key")

    def _begin(self, asked: ChatRequest) -> "_Reply":
        sampling = asked.sampling(self._local.context)
        try:
            draft = self._local.draft(asked.conversation(), sampling)
        except (TemplateError, EngineError) as error:
            raise Refusal(400, str(error)) from error
        return _Reply(self._local, draft, sampling, self._name)


def _parsed(body: bytes) -> ChatRequest:
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "body"
        known = first["type"] != "extra_forbidden"
        raise Refusal(400, f"{where}: {first['msg'] if known else 'not supported'}") from error


class _Reply:
    """An answer, generated in a thread of its own and passed to the server's loop as it comes."""

    def __init__(self, local: LocalModel, draft: Draft, sampling: Sampling, name: str) -> None:
        self._local = local
        self._draft = draft
        self._sampling = sampling
        self._about = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": name,
        }
        self._stopped = threading.Event()
        self._pieces: asyncio.Queue[str | Ending | EngineError] = asyncio.Queue()

    async def whole(self, turn: asyncio.Lock) -> dict[str, Any]:
        """Return a whole reply.

        Raises:
            Refusal: the model cannot answer.
        """
        *_, end = [piece async for piece in self._generated(turn)]
        if isinstance(end, EngineError):
            raise Refusal(500, str(end))
        assert isinstance(end, Ending)  # the last piece
        message = {"role": "assistant", "content": end.text}
        choice = {"index": 0, "message": message, "finish_reason": end.finish_reason}
        return {
            **self._about,
            "object": "chat.completion",
            "choices": [{**choice, "logprobs": None}],
            "usage": self._usage(),
        }

    async def events(self, turn: asyncio.Lock, *, with_usage: bool) -> AsyncIterator[str]:
        """Yield the reply as server-sent events."""
        yield self._event({"role": "assistant", "content": ""})
        async for piece in self._generated(turn):
            if isinstance(piece, EngineError):
                yield _line({"error": {"message": str(piece), "type": "server_error"}})
                return
            if isinstance(piece, Ending):
                yield self._event({}, piece.finish_reason)
            else:
                yield self._event({"content": piece})
        if with_usage:
            yield _line(self._chunk() | {"choices": [], "usage": self._usage()})
        yield "data: [DONE]\n\n"

    async def _generated(self, turn: asyncio.Lock) -> AsyncIterator[str | Ending | EngineError]:
        """Yield pieces of text and then how it ended; who stops reading ends the answer."""
        try:
            async with turn:
                loop = asyncio.get_running_loop()
                # A daemon, so that the process ends although a model is still writing.
                threading.Thread(target=self._run, args=(loop,), daemon=True).start()
                while isinstance(piece := await self._pieces.get(), str):
                    yield piece
                yield piece
        finally:
            self._stopped.set()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        def put(piece: str | Ending | EngineError) -> None:
            with suppress(RuntimeError):  # the loop has ended: so does the process
                loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

        ending: Ending | EngineError | None = EngineError("the answer failed; see the terminal")
        try:
            ending = stream_reply(
                self._local,
                self._draft,
                lambda text: put(text) if text else None,
                self._sampling,
                lambda rows, width: not self._stopped.is_set(),
            )
        except EngineError as error:
            ending = error
        finally:
            put(ending or EngineError("the answer was stopped"))

    def _usage(self) -> dict[str, int]:
        prompt, new = len(self._draft.prompt), len(self._draft.generated)
        return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}

    def _chunk(self) -> dict[str, Any]:
        return {**self._about, "object": "chat.completion.chunk"}

    def _event(self, delta: dict[str, str], finish_reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
        return _line(self._chunk() | {"choices": [choice]})


def _line(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event)}\n\n"
