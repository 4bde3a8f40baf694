"""A client of llama.cpp's server for one GGUF file."""

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from response_tuning.artifacts import Message
from response_tuning.errors import ConfigError, ModelError, TemplateError

_START_S, _REPLY_S = 600.0, 600.0
_LOG_LINES = 3
_CODE = (
    "from response_tuning.serve.export.llama_process import serve; serve({0!r}, {1}, {2}, {3!r})"
)


class Answer(NamedTuple):
    """What llama.cpp generated, greedily."""

    tokens: list[int]
    """Without the stop token."""
    stopped: bool
    """Whether a stop token ended it, and not the limit."""
    logprobs: list[float]
    """Of each token, in nats."""


def check_installed() -> None:
    """Refuse to begin without llama.cpp.

    Raises:
        ConfigError: the extra ``llama`` is not installed.
    """
    if importlib.util.find_spec("xllamacpp") is None:
        raise ConfigError(
            "the proof of an export runs it in llama.cpp, which is not installed: run pip install "
            "'response-tuning[llama]', or give --no-proof to export without one"
        )


class Llama:
    """A running llama.cpp server."""

    def __init__(self, url: str) -> None:
        self._url = url

    def properties(self) -> dict[str, Any]:
        """Return what the server says about the file: its template, BOS and EOS."""
        return self._ask("/props")

    def prompt(self, messages: Sequence[Message]) -> str:
        """Return a conversation as the file's template renders it.

        Raises:
            TemplateError: it refuses the conversation.
        """
        body = {"messages": [message.model_dump() for message in messages]}
        return str(self._ask("/apply-template", body)["prompt"])

    def encode(self, text: str) -> list[int]:
        """Return the ids of a rendered prompt, as the server's own chat encodes it."""
        body = {"content": text, "add_special": True, "parse_special": True}
        return [int(token) for token in self._ask("/tokenize", body)["tokens"]]

    def answer(self, prompt: Sequence[int], limit: int, **more: object) -> Answer:
        """Return the greedy answer to a prompt of token ids."""
        body = {
            **{"prompt": list(prompt), "n_predict": limit, "temperature": 0, "n_probs": 1},
            **{"return_tokens": True, "cache_prompt": False},
        }
        reply = self._ask("/completion", body | more)
        probabilities = reply.get("completion_probabilities", [])
        return Answer(
            tokens=[int(token) for token in reply["tokens"]],
            stopped=reply["stop_type"] == "eos",
            logprobs=[float(each["logprob"]) for each in probabilities],
        )

    def chat(self, messages: Sequence[Message], limit: int) -> tuple[str, str]:
        """Return the text and the finish reason of a greedy answer, as a chat client gets them."""
        body = {
            "messages": [message.model_dump() for message in messages],
            **{"max_tokens": limit, "temperature": 0, "cache_prompt": False},
        }
        choice = self._ask("/v1/chat/completions", body)["choices"][0]
        return str(choice["message"]["content"] or ""), str(choice["finish_reason"])

    def _ask(self, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            self._url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_REPLY_S) as reply:
                answer: dict[str, Any] = json.load(reply)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            raise TemplateError(f"llama.cpp refuses {path}: {' '.join(said.split())}") from error
        except OSError as error:
            raise ModelError(f"llama.cpp ended while it answered {path}: {error}") from error
        return answer


@contextmanager
def running(model: Path, context: int, threads: int) -> Iterator[Llama]:
    """Run a GGUF file in llama.cpp inside the block.

    Raises:
        ModelError: llama.cpp cannot load the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        address, log = Path(folder) / "address", Path(folder) / "log"
        code = _CODE.format(str(model), context, threads, str(address))
        with log.open("wb") as said:
            process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        try:
            yield Llama(_address(process, address, log, model))
        finally:
            process.terminate()
            process.wait()


def _address(process: "subprocess.Popen[bytes]", address: Path, log: Path, model: Path) -> str:
    """Wait for the server's URL."""
    began = time.monotonic()
    while not address.exists():
        if process.poll() is not None or time.monotonic() - began > _START_S:
            lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
            last = " / ".join([line.strip() for line in lines if line.strip()][-_LOG_LINES:])
            raise ModelError(f"{model}: llama.cpp cannot load it: {last}")
        time.sleep(0.05)
    url: str = json.loads(address.read_text(encoding="utf-8"))
    return url
