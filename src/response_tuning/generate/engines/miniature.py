"""The engine ``miniature``: a teacher made of code, which knows the miniature's world alone.

It stands in for an aligned model in studies that must run offline. It goes on with half of a text,
writes roles with rules, and answers in a role.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence

from response_tuning.artifacts import Completion, Request, Sampling, digest
from response_tuning.configs import EngineConfig
from response_tuning.generate.engine import ENGINES, answered, failed
from response_tuning.miniature.families import family_table
from response_tuning.miniature.rules import MOST_RULES, draw_role, obey, plain_answer
from response_tuning.miniature.texts import continuation

_ROLE_WANTED = re.compile(r"Write a role for an assistant, with (\d+) rule")


class MiniatureEngine:
    """Answers by rule, the same at every sampling."""

    template = "miniature"

    def __init__(self) -> None:
        # Its replies are a function of the tables.
        self.model = f"miniature@{digest(json.dumps(family_table().model_dump(mode='json')))}"

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield a role, an answer in the role of the system turn, or else a continuation."""
        for request in requests:
            yield self._complete(request, sampling)

    def _complete(self, request: Request, sampling: Sampling) -> Completion:
        asked = request.prompt[-1].content
        system = next((one.content for one in request.prompt if one.role == "system"), None)
        wanted = _ROLE_WANTED.match(asked)
        if wanted is not None:
            role = draw_role(random.Random(asked), min(int(wanted[1]), MOST_RULES))
            return answered(self, request, sampling, role.model_dump_json(), "stop")
        if system is None:
            return answered(self, request, sampling, continuation(asked), "stop")
        plain = plain_answer(asked)
        if plain is None:
            return failed(self, request, sampling, "no question of the miniature's tuning rows")
        return answered(self, request, sampling, obey(plain, system), "stop")


@ENGINES.register("miniature")
def connect(config: EngineConfig) -> MiniatureEngine:
    """Return the engine, which has no settings."""
    return MiniatureEngine()
