"""The engine ``scripted``: answers from a table, for tests and dry runs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from response_tuning.artifacts import Completion, Record, Request, Sampling, cut, digest, read_jsonl
from response_tuning.configs import EngineConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.generate.engine import ENGINES, answered, failed


class ScriptedAnswer(Record):
    """One line of the table."""

    prompt: str
    response: str


class ScriptedEngine:
    """Looks up the last user message, word for word."""

    template = "scripted"

    def __init__(self, table: Mapping[str, str]) -> None:
        self._table = table
        self.model = f"scripted@{digest(json.dumps(dict(table), sort_keys=True))}"

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield the table's answers; a prompt that is not in it is an error record."""
        for request in requests:
            questions = [turn.content for turn in request.prompt if turn.role == "user"]
            response = self._table.get(questions[-1]) if questions else None
            if response is None:
                yield failed(self, request, sampling, "the table has no response for this prompt")
            else:
                kept = cut(response, sampling.stop)
                text = response if kept is None else kept
                yield answered(self, request, sampling, text, "stop")


@ENGINES.register("scripted")
def connect(config: EngineConfig) -> ScriptedEngine:
    """Read the table that ``config`` names.

    Raises:
        ConfigError: the settings name no table, or the file does not exist.
        DataError: a line of the table is invalid, or contradicts an earlier one.
    """
    if config.table is None or not config.table.is_file():
        raise ConfigError(
            f"engine 'scripted': no such table: {config.table}; give it a JSONL file with "
            "'prompt' and 'response' (--table)"
        )
    return ScriptedEngine(_read(config.table))


def _read(path: Path) -> dict[str, str]:
    table: dict[str, str] = {}
    for number, line in enumerate(read_jsonl(path, ScriptedAnswer), start=1):
        if table.setdefault(line.prompt, line.response) != line.response:
            raise DataError(f"{path}:{number}: an earlier line gives this prompt another response")
    return table
