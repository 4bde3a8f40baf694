from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from response_tuning.artifacts import Sampling
from response_tuning.models import speed
from response_tuning.models.local import Draft, Ending
from response_tuning.models.speed import mean_length, measure

STEP, ROW, PROMPT = 0.010, 0.002, 0.001
SAMPLING = Sampling(max_new_tokens=100)


class Clock:
    """A model whose time is known: a stand-in for ``LocalModel`` and for the clock."""

    model = SimpleNamespace(device=SimpleNamespace(type="cpu"))

    def __init__(self, lengths: Sequence[int] = (100,)) -> None:
        self.now = 0.0
        self.lengths = lengths
        self.batches: list[int] = []

    def extend(
        self, drafts: list[Draft], sampling: Sampling, continue_batch: Callable[[int, int], bool]
    ) -> None:
        self.batches.append(len(drafts))
        width = max(len(draft.prompt) for draft in drafts)
        self.now += PROMPT * len(drafts) * width
        left = [*range(len(drafts))]
        while left:
            self.now += STEP + ROW * len(drafts)
            for place in left:
                drafts[place].generated.append(0)
            left = [p for p in left if not self.ending(drafts[p], sampling, p)]
            if left and not continue_batch(len(left), width):
                return

    def ending(self, draft: Draft, sampling: Sampling, place: int | None = None) -> Ending | None:
        place = draft.prompt[0] if place is None else place
        length = self.lengths[place % len(self.lengths)]
        if len(draft.generated) >= min(length, draft.limit):
            return Ending("", "stop" if length < draft.limit else "length")
        return None


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def make(lengths: Sequence[int] = (100,)) -> Any:
        clock = Clock(lengths)
        for name in ("process_time", "perf_counter"):
            monkeypatch.setattr(f"time.{name}", lambda: clock.now)
        return clock

    return make


def drafts(count: int, limit: int = 100) -> list[Draft]:
    return [Draft([number, 1, 2], limit) for number in range(count)]


def test_time_is_divided_into_prompts_steps_and_rows(clocked: Callable[..., Any]) -> None:
    clock = clocked()
    found = measure(clock, drafts(64), SAMPLING)
    assert [*found] == pytest.approx([PROMPT, STEP, ROW])
    assert clock.batches == [1, 4, 16, 64]


def test_batches_grow_until_one_takes_seconds(clocked: Callable[..., Any]) -> None:
    clock = clocked()
    found = measure(clock, drafts(5000), SAMPLING)
    assert found.row == pytest.approx(ROW)
    assert clock.batches == [1, 4, 16, 64, 256]
    assert PROMPT * 3 * 256 + speed.STEPS * (STEP + ROW * 256) > speed.SECONDS


def test_a_single_prompt_is_measured_too(clocked: Callable[..., Any]) -> None:
    found = measure(clocked(), drafts(1), SAMPLING)
    assert found.step + found.row == pytest.approx(STEP + ROW)


def test_answers_that_end_at_once_are_measured_by_their_first_token(
    clocked: Callable[..., Any],
) -> None:
    found = measure(clocked([1]), drafts(16), SAMPLING)
    assert found.prompt_token == pytest.approx(0.0)
    assert found.row > 0


def test_answers_without_an_end_are_as_long_as_their_limit(clocked: Callable[..., Any]) -> None:
    assert mean_length(clocked([100]), drafts(16, limit=30), SAMPLING) == 30


def test_the_mean_length_is_that_of_answers_that_end_as_often_as_those_seen(
    clocked: Callable[..., Any],
) -> None:
    # All end within the seconds: 16 ends in 8 x 4 + 8 x 6 tokens, one in five.
    assert mean_length(clocked([4, 6]), drafts(16), SAMPLING) == pytest.approx(5.0, abs=1e-6)
    # No answer is longer than its limit of two tokens.
    assert mean_length(clocked([2]), drafts(16, limit=2), SAMPLING) == 2
