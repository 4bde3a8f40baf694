"""An answer as JSON lines, made in a thread of its own and sent as it comes."""

import asyncio
import json
import secrets
import threading
from collections.abc import AsyncIterator
from typing import Any

from response_tuning.errors import ResponseTuningError
from response_tuning.redaction import redacted
from response_tuning.serve.playground.records import Ask, Started
from response_tuning.serve.playground.session import Playground


class _Queue:
    """A listener that passes events from the answering thread to the server's loop."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(8)
        """Of the answer: the page asks for it by this if it does not read to the end."""
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self.events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        """None: there are no more."""

    def started(self, start: Started) -> None:
        """Send what answers, and the prompt."""
        about = start._asdict()
        about["stretches"] = [part._asdict() for part in start.stretches]
        self.put({"type": "start", "id": self.id, **about})

    def text(self, piece: str) -> None:
        """Send a piece of text."""
        if piece:
            self.put({"type": "text", "text": piece})

    def is_stopped(self) -> bool:
        """Whether the page has closed the connection."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """End the answer after its next token, and the stream of it at once."""
        self._stopped.set()
        self.put(None)

    def put(self, event: dict[str, Any] | None) -> None:
        """Send an event, unless the server has ended."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.events.put_nowait, event)


async def answer_lines(playground: Playground, ask: Ask) -> AsyncIterator[str]:
    """Yield an answer as JSON lines; when nobody reads on, it is ended and kept as it is."""
    queue = _Queue()
    # A daemon, so that Ctrl-C ends the command although a model is still writing.
    thread = threading.Thread(target=_answer, args=(playground, ask, queue), daemon=True)
    playground.running[thread] = queue.stop
    thread.start()
    try:
        while (event := await queue.events.get()) is not None:
            yield json.dumps(event) + "\n"
    finally:
        queue.stop()


def _answer(playground: Playground, ask: Ask, queue: _Queue) -> None:
    try:
        answer = playground.answer(ask, queue, queue.id)
        queue.put({"type": "end", "answer": answer.model_dump(mode="json")})
    except ResponseTuningError as error:
        queue.put({"type": "error", "error": redacted(str(error))})
    except BaseException:
        queue.put({"type": "error", "error": "the answer failed; see the terminal"})
        raise
    finally:
        queue.put(None)
        playground.running.pop(threading.current_thread(), None)
