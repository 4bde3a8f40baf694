from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from response_tuning.artifacts import (
    Completion,
    Message,
    Sampling,
    Score,
    Total,
    write_json,
    write_jsonl,
)

Grade = Callable[..., None]
Answer = Callable[..., None]
Add = Callable[..., None]


class Drawn:
    """A figure that costs nothing."""

    svg = "<svg/>"

    def saved(self, form: str) -> bytes:
        return self.svg.encode()


@pytest.fixture
def plain_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the drawing out: it takes much of a report's time, and has tests of its own."""
    monkeypatch.setattr("response_tuning.report.writing.at_a_glance", lambda *_: Drawn())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def grade(run: Path) -> Grade:
    """Write the scores of one variant, seed and benchmark: metric -> one value an item, or None.

    A value may be a pair of value and weight.
    """

    def write(
        variant: str,
        metrics: Mapping[str, Sequence[float | tuple[float, float] | None]],
        *,
        seed: int = 0,
        benchmark: str = "quiz",
        groups: Sequence[str] = ("",),
        clusters: Sequence[str] = ("",),
    ) -> None:
        scores = [
            Score(
                item_id=f"q{place}",
                metric=metric,
                value=value[0] if isinstance(value, tuple) else value,
                weight=value[1] if isinstance(value, tuple) else 1,
                group=groups[place % len(groups)],
                cluster=clusters[place % len(clusters)],
            )
            for metric, values in metrics.items()
            for place, value in enumerate(values)
            if value is not None
        ]
        write_jsonl(run / variant / f"seed-{seed}" / "grade" / f"{benchmark}.jsonl", scores)

    return write


@pytest.fixture
def total(run: Path) -> Add:
    """Write the totals of one variant, seed and benchmark: metric -> value, low and high."""

    def write(
        variant: str,
        metrics: Mapping[str, tuple[float, float, float]],
        *,
        seed: int = 0,
        benchmark: str = "quiz",
        n: int = 3,
        note: str = "fitted",
    ) -> None:
        totals = [
            Total(metric=metric, value=value, low=low, high=high, n=n, note=note)
            for metric, (value, low, high) in metrics.items()
        ]
        path = run / variant / f"seed-{seed}" / "grade" / f"{benchmark}.totals.json"
        write_json(path, {"totals": [total.model_dump() for total in totals]})

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
