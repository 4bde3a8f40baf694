"""The engine ``openai-batch``: OpenAI's batch API, which answers within a day at half the price.

A batch costs money from the moment it is made, and a command may be killed while it waits. So each
batch carries the engine's identity, and its lines the keys of the completions. The same command
finds its batches on the server, and asks for nothing that one of them answers.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from response_tuning.artifacts import Completion, Request, Sampling, digest
from response_tuning.configs import EngineConfig
from response_tuning.errors import EngineError
from response_tuning.generate import dialect
from response_tuning.generate.access import access
from response_tuning.generate.engine import ENGINES, key, one_line
from response_tuning.generate.engines.openai import OpenAIEngine
from response_tuning.redaction import redacted
from response_tuning.terminal import printable

if TYPE_CHECKING:
    from openai import OpenAI


_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
POLL_S = 30.0
"""How often the server is asked whether a batch has ended."""
REQUESTS, BYTES = 50_000, 190 * 10**6
"""OpenAI's limits of one batch, with room."""
_MARK = "rtune"
"""The metadata that holds a digest of the engine's identity."""
_WAITING = ("validating", "in_progress", "finalizing", "cancelling")
_ENDED = ("completed", "expired", "cancelled")
"""States that may have answers; those of ``failed`` are none."""


class _Batch(NamedTuple):
    id: str
    keys: frozenset[str]
    """Of the wanted requests in it."""


class OpenAIBatchEngine(OpenAIEngine):
    """Sends all requests at once, waits for the server, and reads the answers."""

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield the completions of each batch when it has ended.

        Raises:
            EngineError: the server refuses the batch, or cannot be reached.
        """
        wanted = {key(self, request, sampling): request for request in requests}
        with self._batch_client() as client:
            batches = [*self._found(client, wanted)]
            known = frozenset().union(*(batch.keys for batch in batches))
            missing = {k: request for k, request in wanted.items() if k not in known}
            batches += self._made(client, missing, sampling)
            for batch in batches:
                yield from self._answers(client, batch, wanted, sampling)

    def _found(self, client: "OpenAI", wanted: Mapping[str, Request]) -> Iterator[_Batch]:
        """Yield earlier batches that hold wanted requests; none is claimed twice."""
        left = set(wanted)
        ours = [
            batch
            for batch in self._asked(lambda: [*client.batches.list(limit=100)])
            if (batch.metadata or {}).get(_MARK) == self._mark
        ]
        for batch in ours:
            # What has ended has the answers that count; what waits, its requests.
            ended = batch.status in _ENDED
            file = batch.output_file_id if ended else batch.input_file_id
            if not left or not file or batch.status not in (*_WAITING, *_ENDED):
                continue
            keys = frozenset(str(line.get("custom_id")) for line in self._lines(client, file))
            if found := keys & left:
                left -= found
                _LOG.warning("batch %s has %d of the requests already", batch.id, len(found))
                yield _Batch(batch.id, found)

    def _made(
        self, client: "OpenAI", missing: Mapping[str, Request], sampling: Sampling
    ) -> Iterator[_Batch]:
        """Send the requests that no batch has."""
        lines: dict[str, bytes] = {}
        size = 0
        for k, request in missing.items():
            body = {"model": self._config.model, **dialect.fields(request, sampling)}
            line = {"custom_id": k, "method": "POST", "url": "/v1/chat/completions", "body": body}
            encoded = json.dumps(line).encode() + b"\n"
            if len(lines) == REQUESTS or size + len(encoded) > BYTES:
                yield self._sent(client, lines)
                lines, size = {}, 0
            lines[k] = encoded
            size += len(encoded)
        if lines:
            yield self._sent(client, lines)

    def _sent(self, client: "OpenAI", lines: Mapping[str, bytes]) -> _Batch:
        content = b"".join(lines.values())
        file = self._asked(
            lambda: client.files.create(file=("requests.jsonl", content), purpose="batch")
        )
        # A file costs nothing. A batch does, so it is made once, without the SDK's retries: it may
        # have been made although its reply was lost. Then the same command finds it.
        batch = self._asked(
            lambda: client.with_options(max_retries=0).batches.create(
                input_file_id=file.id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
                metadata={_MARK: self._mark},
            )
        )
        _LOG.warning(
            "batch %s has %d requests; it goes on without this command, and the same command "
            "reads its answers",
            batch.id,
            len(lines),
        )
        return _Batch(batch.id, frozenset(lines))

    def _answers(
        self,
        client: "OpenAI",
        batch: _Batch,
        wanted: Mapping[str, Request],
        sampling: Sampling,
    ) -> Iterator[Completion]:
        """Wait for a batch, and yield its completions; what it does not answer is an error."""
        while (state := self._asked(lambda: client.batches.retrieve(batch.id))).status in _WAITING:
            time.sleep(POLL_S)
        left = set(batch.keys)
        for file in filter(None, (state.output_file_id, state.error_file_id)):
            for line in self._lines(client, file):
                if (k := line.get("custom_id")) in left:
                    left.remove(k)
                    yield self._completion(line, wanted[k], sampling)
        why = "; ".join(str(each.message) for each in (state.errors and state.errors.data) or [])
        for k in sorted(left):
            message = f"batch {batch.id} is {state.status} without an answer {why}".strip()
            yield self._failed(wanted[k], sampling, message)

    def _completion(
        self, line: Mapping[str, Any], request: Request, sampling: Sampling
    ) -> Completion:
        import httpx2

        response = line.get("response") or {}
        if line.get("error") or response.get("status_code") != 200:
            told = line.get("error") or response.get("body")
            return self._failed(request, sampling, f"batch: {json.dumps(told)}")
        body = json.dumps(response.get("body")).encode()
        reply = httpx2.Response(200, content=body)
        return self._read(reply, request, sampling, frozenset()).completion

    def _lines(self, client: "OpenAI", file: str) -> Iterator[dict[str, Any]]:
        """Yield the objects of a file on the server, which may be larger than memory."""
        from openai import APIError

        try:
            with client.files.with_streaming_response.content(file) as reply:
                for line in reply.iter_lines():
                    if line.strip():
                        content = json.loads(line)
                        yield content if isinstance(content, dict) else {}
        except (APIError, OSError, ValueError) as error:
            raise self._error(error) from error

    def _asked(self, ask: Callable[[], _T]) -> _T:
        """Return what the server says.

        Raises:
            EngineError: it refuses, or cannot be reached.
        """
        from openai import APIError

        try:
            return ask()
        except APIError as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> EngineError:
        text = one_line(printable(redacted(str(error), self._api_key)))
        return EngineError(
            f"engine 'openai-batch': {type(error).__name__}: {text}; the same command goes on"
        )

    def _batch_client(self) -> "OpenAI":
        import httpx2
        from openai import OpenAI

        return OpenAI(
            api_key=self._api_key,
            base_url=self._config.base_url,
            max_retries=self._config.max_retries,
            timeout=self._config.timeout_s,
            http_client=httpx2.Client(proxy=self._proxy, trust_env=False, follow_redirects=False),
        )

    @property
    def _mark(self) -> str:
        return digest(self.model, self.template)


@ENGINES.register("openai-batch")
def connect(config: EngineConfig) -> OpenAIBatchEngine:
    """Check the settings; nothing is sent before the first request.

    Raises:
        ConfigError: the address or the model's name is missing or invalid.
        EngineError: the environment variable with the key is not set.
    """
    return OpenAIBatchEngine(config, *access(config))
