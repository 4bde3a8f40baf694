"""How each program is called to serve a model: llama.cpp, vLLM, or this package itself."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from response_tuning.errors import ConfigError
from response_tuning.serve.server.backend import Launch, free_port
from response_tuning.serve.server.children import command
from response_tuning.serve.server.front import ServedModel

LLAMA, VLLM, LOCAL = "llama.cpp", "vllm", "transformers"
_CHILDREN = "response_tuning.serve.server.children"
_GREEDY: dict[str, Any] = {"temperature": 0, "top_p": 1}
"""What a client gets that names no sampling, as in ``rtune chat`` and an exported Modelfile."""
_PLAIN: dict[str, Any] = {**_GREEDY, "top_k": 0, "min_p": 0}
"""The same for programs that would cut the distribution further by themselves."""
_SHARE = 0.9
"""Share of a GPU's memory that vLLM takes by default, which its models have to divide."""
_ASK = """
import importlib.metadata, json, torch
print(json.dumps([importlib.metadata.version("vllm"), torch.cuda.is_available()]))
"""


class Source(NamedTuple):
    """A model to serve."""

    name: str
    """What clients call it."""
    path: str
    """A folder, a GGUF file or a hub id."""
    identity: str
    template: str | None = None
    """Chat template by its name or file; None: the model's own."""


def local(source: Source) -> Launch:
    """Return how this package serves a model."""
    port = free_port()
    arguments = (source.path, source.name, port, source.template)
    model = _served(source, LOCAL, port, stop=(), defaults=_GREEDY)  # its engine knows the stops
    return Launch(model, command(sys.executable, f"{_CHILDREN}.run_local", *arguments))


def llama(source: Source, context: int, template: str, stop: tuple[str, ...]) -> Launch:
    """Return how llama.cpp serves a GGUF file.

    Args:
        source: The file.
        context: Tokens that one conversation may have.
        template: The text of a chat template in place of the file's; empty for the file's own.
        stop: Stop strings of the template that is used.
    """
    port = free_port()
    arguments = (source.path, source.name, port, context, template)
    model = _served(source, LLAMA, port, stop=stop, defaults=_PLAIN)
    return Launch(model, command(sys.executable, f"{_CHILDREN}.run_llama", *arguments))


class VllmUse(NamedTuple):
    """What vLLM is given for one model."""

    python: Path
    """The Python of its environment."""
    models: int
    """Models that share the GPU."""
    context: int | None
    """Tokens that one conversation may have; None: the model's own limit."""
    template: Path | None
    """File with a chat template in place of the model's own."""
    stop: tuple[str, ...]
    stop_ids: tuple[int, ...]
    """Of the template."""


def vllm(source: Source, use: VllmUse) -> Launch:
    """Return how vLLM serves a folder or a hub id."""
    port = free_port()
    words = [str(use.python.parent / "vllm"), "serve", source.path]
    words += ["--served-model-name", source.name, "--host", "127.0.0.1", "--port", str(port)]
    words += ["--gpu-memory-utilization", f"{_SHARE / use.models:.3f}"]
    words += ["--max-model-len", str(use.context)] if use.context else []
    words += ["--chat-template", str(use.template)] if use.template else []
    stops = {"stop_token_ids": [*use.stop_ids]} if use.stop_ids else {}
    defaults = {**_PLAIN, "repetition_penalty": 1, **stops}
    return Launch(_served(source, VLLM, port, stop=use.stop, defaults=defaults), words)


def check_vllm(python: Path) -> None:
    """Refuse a Python whose environment cannot run vLLM here.

    Raises:
        ConfigError: it is no Python, has no vLLM, or its torch sees no GPU.
    """
    try:
        done = subprocess.run([str(python), "-c", _ASK], capture_output=True, text=True)
    except OSError as error:
        raise ConfigError(f"--vllm {python}: {error.strerror}") from error
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2]
        raise ConfigError(
            f"--vllm {python}: no vLLM in this environment ({last}); run {python} -m pip install "
            "vllm, in an environment of its own"
        )
    version, has_gpu = json.loads(done.stdout)
    if not has_gpu:
        raise ConfigError(
            f"--vllm {python}: vLLM {version} is there, but its torch sees no GPU; leave --vllm out"
        )


def _served(
    source: Source, program: str, port: int, *, stop: tuple[str, ...], defaults: dict[str, Any]
) -> ServedModel:
    return ServedModel(
        name=source.name,
        program=program,
        url=f"http://127.0.0.1:{port}",
        identity=source.identity,
        stop=stop,
        defaults=defaults,
        created=int(time.time()),
    )
