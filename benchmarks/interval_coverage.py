"""How often the intervals of a report cover the truth: ``python benchmarks/interval_coverage.py``.

    python benchmarks/interval_coverage.py [--runs 1000]

Simulated runs compare two variants of equal or unequal quality, and estimate one of them alone.
Every number goes through the report's own code. An answer to a prompt is right if a threshold of
the prompt is below the quality of the model, so that its mean is that quality. For half of the
clusters, both variants and all seeds share the threshold; for a quarter, the seeds of a variant
share it; for the rest, it is drawn for every answer. The quality of a trained model has a beta
distribution.

With one seed, the true difference belongs to the two trained models; with several, to all seeds.
"""

import argparse
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np

from response_tuning.report.estimates import difference, estimated, mean
from response_tuning.report.joined import BenchmarkScores

SHARED, OWN = 0.5, 0.25
"""Shares of the clusters whose threshold all answers share, and all answers of one variant."""
PROMPTS, QUALITIES, DEVIATIONS = (50, 200, 800), (0.02, 0.5, 0.98), (0.0, 0.01, 0.025, 0.05)
SEEDS, PHRASINGS = (1, 3, 5), (1, 5)
UNEQUAL = ((0.83, 0.976), (0.5, 0.8))
"""Qualities of two variants; the first is the demo's response tuning and instruction tuning."""
RUNS = 1000
LEVEL = 0.05


class Case(NamedTuple):
    """A kind of run."""

    seeds: int
    quality: float
    """Mean share of right answers."""
    prompts: int
    deviation: float
    """Standard deviation between seeds: of the difference, and of one variant alone."""
    phrasings: int = 1
    """Prompts of a cluster."""
    baseline: float | None = None
    """Mean share of the other variant; None: the same."""


class Coverage(NamedTuple):
    """Shares of the runs whose interval covers the truth."""

    of_differences: float
    of_means: float


def cases() -> Iterator[Case]:
    """Yield every case with one prompt a cluster, some with several, and some of unequal arms."""
    for phrasings, seeds, quality, prompts, deviation in product(
        PHRASINGS, SEEDS, QUALITIES, PROMPTS, DEVIATIONS
    ):
        trained = seeds > 1 or deviation == 0  # a single seed has no deviation
        if trained and (phrasings == 1 or (seeds < 5 and quality != QUALITIES[0])):
            yield Case(seeds, quality, prompts, deviation, phrasings)
    for (quality, baseline), seeds, prompts, deviation in product(
        UNEQUAL, SEEDS[1:], PROMPTS[1:], DEVIATIONS
    ):
        yield Case(seeds, quality, prompts, deviation, baseline=baseline)


def coverage(case: Case, runs: int = RUNS, seed: int = 0) -> Coverage:
    """Simulate runs of one kind."""
    given = [value for value in case if value is not None]
    rng = np.random.default_rng([seed, *map(int, (1000 * np.array(given)).round())])
    pairs = [_covered(case, rng, paired=True) for _ in range(runs)]
    alone = [_covered(case, rng, paired=False) for _ in range(runs)]
    return Coverage(float(np.mean(pairs)), float(np.mean(alone)))


def _covered(case: Case, rng: np.random.Generator, *, paired: bool) -> bool:
    # A difference varies by the deviations of both of its variants.
    qualities = _qualities(case, rng, case.deviation / np.sqrt(2) if paired else case.deviation)
    scores = _answers(case, rng, qualities)
    contrast = difference("strict", "rt", "it") if paired else mean("strict", "rt")
    found = estimated(scores, contrast)
    assert found is not None
    trained = qualities[0, 0] - qualities[1, 0] if paired else qualities[0, 0]
    general = case.quality - _mean_of_other(case) if paired else case.quality
    return found.evidence.p_value(float(trained if case.seeds == 1 else general)) >= LEVEL


def _qualities(case: Case, rng: np.random.Generator, deviation: float) -> np.ndarray:
    """Return the quality of each variant at each seed."""
    p = np.repeat([[case.quality], [_mean_of_other(case)]], case.seeds, axis=1)
    if deviation == 0:
        return p
    size = p * (1 - p) / deviation**2 - 1
    return rng.beta(p * size, (1 - p) * size)


def _mean_of_other(case: Case) -> float:
    return case.quality if case.baseline is None else case.baseline


def _answers(case: Case, rng: np.random.Generator, qualities: np.ndarray) -> BenchmarkScores:
    facts = case.prompts // case.phrasings
    kinds = rng.random(facts)
    of_fact = np.where(kinds < SHARED, rng.random(facts), rng.random((2, 1, facts)))
    of_prompt = np.repeat(of_fact, case.phrasings, axis=-1)
    of_answer = rng.random((2, case.seeds, case.prompts))
    settled = np.repeat(kinds < SHARED + OWN, case.phrasings)
    right = np.where(settled, of_prompt, of_answer) < qualities[..., None]
    return BenchmarkScores(
        name="simulated",
        variants=("rt", "it"),
        seeds=tuple(range(case.seeds)),
        items=_numbers(case.prompts, 1),
        groups=("",) * case.prompts,
        clusters=_numbers(case.prompts, case.phrasings),
        values={"strict": right.astype(float)},
    )


@cache
def _numbers(count: int, repeated: int) -> tuple[str, ...]:
    return tuple(f"{number // repeated:04}" for number in range(count))


def main() -> None:
    """Print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    runs = parser.parse_args().runs
    found = {case: coverage(case, runs) for case in cases()}
    heads = [f"sd {100 * deviation:g}" for deviation in DEVIATIONS]
    print("| phrasings | seeds | share | prompts |", " | ".join(heads), "|")
    print("|" + "---:|" * (4 + len(heads)))
    rows: dict[tuple[object, ...], list[str]] = {}
    for case, (pair, alone) in found.items():
        shares = f"{case.quality} and {case.baseline}" if case.baseline else case.quality
        key = (case.phrasings, case.seeds, shares, case.prompts)
        rows.setdefault(key, []).append(f"{100 * pair:.1f} / {100 * alone:.1f}")
    for key, cells in rows.items():
        print("|", " | ".join([*map(str, key), *cells, *[""] * (len(heads) - len(cells))]), "|")


if __name__ == "__main__":
    main()
