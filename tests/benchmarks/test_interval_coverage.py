import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "interval_coverage.py"
RUNS = 1000
NOISE = 0.0138
"""Two standard errors of a coverage of 95 % in 1,000 runs."""


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_the_interval_of_a_difference_covers_another_seed_as_often_as_it_says(
    script: dict[str, Any],
) -> None:
    case = script["Case"](seeds=3, quality=0.5, prompts=50, deviation=0.05)
    of_differences, of_means = script["coverage"](case, runs=150)
    assert 0.90 < of_differences < 0.99
    assert 0.90 < of_means < 0.99


@pytest.mark.exhaustive
def test_the_interval_of_a_difference_covers_the_truth_in_at_least_92_percent_of_runs(
    script: dict[str, Any],
) -> None:
    """Every case of docs/statistics.md, where the other cases are explained."""
    low, high = 0.93 - NOISE, 0.97 + NOISE
    for case in script["cases"]():
        of_differences, of_means = script["coverage"](case, RUNS)
        assert of_differences > low, case
        # Near 0 and 1, or with few facts, arms seldom differ: those intervals are too wide.
        if case.quality == 0.5 and case.prompts // case.phrasings >= 40:
            assert of_differences < high, case
            assert low < of_means < high, case
