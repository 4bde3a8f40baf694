"""The engine ``miniature``: a teacher made of code, for the miniature's texts.

It stands in for an aligned model in studies that must run offline. It knows the world of the
miniature and nothing else.
"""

import json
from collections.abc import Iterator, Sequence

from response_tuning.artifacts import Completion, Request, Sampling, digest
from response_tuning.configs import EngineConfig
from response_tuning.generate.engine import ENGINES, answered
from response_tuning.miniature.families import family_table
from response_tuning.miniature.texts import continuation


class MiniatureEngine:
    """Goes on with the last user message, whatever the sampling."""

    template = "miniature"

    def __init__(self) -> None:
        # Its replies are a function of the tables.
        self.model = f"miniature@{digest(json.dumps(family_table().model_dump(mode='json')))}"

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield a sentence about what the half of each request is about."""
        for request in requests:
            text = continuation(request.prompt[-1].content)
            yield answered(self, request, sampling, text, "stop")


@ENGINES.register("miniature")
def connect(config: EngineConfig) -> MiniatureEngine:
    """Return the engine, which has no settings."""
    return MiniatureEngine()
