"""What runs in a model's own process: llama.cpp, or the model as this package loads it."""

import os
import threading
from collections.abc import Sequence

KEY = "RTUNE_BACKEND_KEY"
"""Environment variable with the key of the process: others on this machine cannot ask it."""
SLOTS = 4
"""Conversations that llama.cpp answers at once."""


def run_llama(model: str, name: str, port: int, context: int, template: str) -> None:
    """Serve a GGUF file with llama.cpp.

    Args:
        model: The file.
        name: What clients call it.
        port: The port on loopback.
        context: Tokens that one conversation may have.
        template: A chat template in place of the file's; empty for the file's own.
    """
    import xllamacpp  # the extra `llama`

    settings = xllamacpp.CommonParams()
    settings.model.path = model
    settings.model_alias = {name}
    settings.port = port
    settings.api_keys = [os.environ[KEY]]
    settings.n_parallel = SLOTS
    settings.n_ctx = context * SLOTS
    settings.chat_template = template
    settings.endpoint_slots = False  # shows what others ask
    if threads := os.environ.get("OMP_NUM_THREADS"):
        settings.cpuparams.n_threads = int(threads)
        settings.cpuparams_batch.n_threads = int(threads)
    server = xllamacpp.Server(settings)
    assert server.listening_address
    threading.Event().wait()  # until a signal


def run_local(model: str, name: str, port: int, template: str | None) -> None:
    """Serve a model with this package's own decoding.

    Args:
        model: A folder, a GGUF file or a hub id.
        name: What clients call it.
        port: The port on loopback.
        template: Chat template for a model without one.
    """
    from response_tuning import loopback
    from response_tuning.models.inference import load
    from response_tuning.serve.server.local_server import local_app
    from response_tuning.terminal import log_to_stderr, quiet_libraries

    log_to_stderr()
    quiet_libraries()
    app = local_app(load(model, template), name, os.environ[KEY])
    loopback.serve(app, port)


def command(python: str, function: str, *arguments: object) -> Sequence[str]:
    """Return the command that calls a function of this package in a new process."""
    module, _, name = function.rpartition(".")
    call = f"{name}({', '.join(map(repr, arguments))})"
    return [python, "-c", f"from {module} import {name}; {call}"]
