import json
import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/lengths.py"))
draw: Any = SCRIPT["draw"]
HISTOGRAMS: dict[str, list[list[int]]] = json.loads(SCRIPT["HISTOGRAMS"].read_text("utf-8"))


@pytest.mark.parametrize("workload", HISTOGRAMS)
def test_what_is_drawn_is_as_long_as_the_examples_were(workload: str) -> None:
    rows = HISTOGRAMS[workload]
    examples = sum(count for _, count, _ in rows)
    mean = sum(tokens * count for tokens, count, _ in rows) / examples
    carrying = sum(supervised for *_, supervised in rows) / examples
    drawn = draw(workload, 10**6, 20_000)
    assert sum(length.tokens for length in drawn) / 20_000 == pytest.approx(mean, rel=0.05)
    assert sum(length.supervised for length in drawn) / 20_000 == pytest.approx(carrying, rel=0.05)
    assert draw(workload, 10**6, 5) == draw(workload, 10**6, 5) != draw(workload, 10**6, 5, seed=1)


def test_an_example_longer_than_the_window_is_cut_at_its_end() -> None:
    whole, cut = draw("lima-it", 10**6, 1000), draw("lima-it", 300, 1000)
    for before, after in zip(whole, cut, strict=True):
        assert after.tokens == min(before.tokens, 300)
        prefix = before.tokens - before.supervised
        assert after.supervised == max(after.tokens - prefix, 1)


def test_response_tuning_sees_the_responses_alone() -> None:
    for source in SCRIPT["FILES"]:
        alone, both = (HISTOGRAMS[f"{source}-{name}"] for name in SCRIPT["OBJECTIVES"])
        assert sum(tokens * count for tokens, count, _ in alone) < sum(
            tokens * count for tokens, count, _ in both
        )
