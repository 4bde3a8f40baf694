from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from response_tuning.artifacts import Completion, Message, Sampling, Score, write_jsonl

Grade = Callable[..., None]
Answer = Callable[..., None]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def grade(run: Path) -> Grade:
    """Write the scores of one variant, seed and benchmark: metric -> one value an item, or None."""

    def write(
        variant: str,
        metrics: Mapping[str, Sequence[float | None]],
        *,
        seed: int = 0,
        benchmark: str = "quiz",
        groups: Sequence[str] = ("",),
    ) -> None:
        scores = [
            Score(
                item_id=f"q{place}",
                metric=metric,
                value=value,
                group=groups[place % len(groups)],
            )
            for metric, values in metrics.items()
            for place, value in enumerate(values)
            if value is not None
        ]
        write_jsonl(run / variant / f"seed-{seed}" / "grade" / f"{benchmark}.jsonl", scores)

    return write


@pytest.fixture
def answer(run: Path) -> Answer:
    """Write the completions of one variant, seed and benchmark; None is a failed one."""

    def write(
        variant: str,
        responses: Sequence[str | None],
        *,
        seed: int = 0,
        benchmark: str = "quiz",
        prompt: str = "What is it?",
        stopped: bool = True,
    ) -> None:
        completions = [
            Completion(
                item_id=f"q{place}",
                prompt=(Message(role="user", content=prompt),),
                response=response,
                finish_reason=None if response is None else "stop" if stopped else "length",
                error="no reply" if response is None else None,
                key=str(place),
                model=variant,
                template="tulu",
                sampling=Sampling(),
            )
            for place, response in enumerate(responses)
        ]
        write_jsonl(run / variant / f"seed-{seed}" / "generate" / f"{benchmark}.jsonl", completions)

    return write
