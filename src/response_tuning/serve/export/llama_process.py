"""llama.cpp in a process of its own: a damaged file makes it abort, and its log is long."""

import json
import os
import time
from pathlib import Path

_LOOK_S = 0.5
"""How often the process looks whether the one that started it still runs."""


def serve(model: str, context: int, threads: int, address: str) -> None:
    """Serve a GGUF file on loopback until the parent ends, and write the URL to ``address``.

    Args:
        model: The file.
        context: Tokens that one conversation may have.
        threads: Threads to compute with.
        address: The file that receives the URL.
    """
    import xllamacpp  # the extra `llama`

    parent = os.getppid()
    settings = xllamacpp.CommonParams()
    settings.model.path = model
    settings.n_ctx = context
    settings.cpuparams.n_threads = threads
    settings.cpuparams_batch.n_threads = threads
    settings.warmup = False
    settings.endpoint_props = True
    server = xllamacpp.Server(settings)
    partial = Path(f"{address}.partial")
    partial.write_text(json.dumps(server.listening_address), encoding="utf-8")
    partial.replace(address)
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
