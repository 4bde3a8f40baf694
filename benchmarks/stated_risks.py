"""Do the thresholds for a stated risk keep it on facts that they were not chosen on?

    python benchmarks/stated_risks.py RUN [VARIANT]

A run with ``generate.settings.confidence: true``. The facts that a benchmark asks about are halved
400 times. A threshold is sought on the answers about one half, with answers counted by their
clusters and as if each were independent, and tried on the other half. Printed for each model: in
how many splits there was a threshold, and in which share of all the risk was above the stated one
on the other half, where chance adds to what the threshold promises.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from response_tuning.report.selective import Answers, threshold
from response_tuning.workflows.abstention import graded_answers

SPLITS = 400
RISKS = (0.1, 0.2)


class Kept(NamedTuple):
    """What came of the splits."""

    found: int
    exceeded: int


def halved(answers: Answers, risk: float, *, by_cluster: bool, splits: int = SPLITS) -> Kept:
    """Return in how many splits of the clusters a threshold was found, and did not keep it."""
    draw = np.random.default_rng(0)
    clusters = int(answers.clusters.max()) + 1
    found = exceeded = 0
    for _ in range(splits):
        chosen = np.isin(answers.clusters, draw.permutation(clusters)[: clusters // 2])
        half = Answers(*(column[chosen] for column in answers))
        of = np.unique(half.clusters, return_inverse=True)[1]
        if not by_cluster:
            of = np.arange(len(of))
        limit = threshold(half._replace(clusters=of), risk)
        if limit is None:
            continue
        found += 1
        kept = ~chosen & (answers.confidence >= limit[0])
        exceeded += bool(kept.any()) and float(1 - answers.right[kept].mean()) > risk
    return Kept(found, exceeded)


def table(run: Path, variant: str) -> Iterator[str]:
    """Yield a line for each model, benchmark and stated risk."""
    for file in sorted((run / variant).glob("seed-*/grade/*.jsonl")):
        _, answers = graded_answers(file)
        for risk in RISKS:
            name = f"{file.parents[1].name} {file.stem} {risk:.0%}"
            cells = []
            for by_cluster in (True, False):
                kept = halved(answers, risk, by_cluster=by_cluster)
                cells.append(f"{kept.found:4} found, {kept.exceeded / SPLITS:6.1%} above")
            yield f"{name:32}  by cluster {cells[0]}   each alone {cells[1]}"


def main() -> None:
    """Print the table."""
    run, variant = sys.argv[1], (*sys.argv[2:], "rt")[0]
    for line in table(Path(run), variant):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
