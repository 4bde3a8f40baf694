from collections.abc import Callable
from typing import Literal

import pytest

from response_tuning.artifacts import Completion, Request, Sampling
from response_tuning.grade import Benchmark, Item, open_benchmark


def _completion(
    request: Request,
    response: str | None,
    finish_reason: Literal["stop", "length"] | None = "stop",
    error: str | None = None,
    tokens: int | None = None,
) -> Completion:
    return Completion(
        item_id=request.item_id,
        prompt=request.prompt,
        response=response,
        finish_reason=finish_reason,
        error=error,
        tokens=tokens,
        key=request.item_id,
        model="m",
        template="t",
        sampling=Sampling(),
    )


@pytest.fixture
def completion() -> Callable[..., Completion]:
    """Make the record of what was answered to a request."""
    return _completion


@pytest.fixture
def scored() -> Callable[..., dict[str, float]]:
    """Score an answer to an item of a benchmark: metric -> value."""

    def run(benchmark: str, item: Item, response: str, finish_reason: str) -> dict[str, float]:
        answer = _completion(item, response, finish_reason)  # type: ignore[arg-type]
        rule = open_benchmark(benchmark)
        assert isinstance(rule, Benchmark)
        scores = list(rule.score(item, answer))
        assert len({score.metric for score in scores}) == len(scores)
        return {score.metric: score.value for score in scores}

    return run
