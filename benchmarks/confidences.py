"""Are the rows that a model is sure of without their prompts those it is sure of with them?

    python benchmarks/confidences.py RT_RUN [IT_RUN]

Runs of ``recipes/miniature-mixtures.yaml`` on the same rows, without and with prompts. For each
seed, over the rows of ``plain``: Spearman's correlation of both confidences, of each one with the
length of the response, and the mean length (tokens) of the confident and of the other half.
"""

import sys
from pathlib import Path
from statistics import fmean, median

from scipy.stats import spearmanr

from response_tuning.artifacts import read_jsonl
from response_tuning.finetune.confidence import FILE, Confidence

REFERENCE = "plain"
Rows = dict[tuple[int, int], Confidence]


def rows_of(run: Path) -> dict[str, Rows]:
    """Return the confidences of the reference run, by the name of the seed's folder."""
    files = sorted((run / REFERENCE).glob(f"seed-*/finetune/{FILE}"))
    return {
        file.parents[1].name: {(one.row, one.turn): one for one in read_jsonl(file, Confidence)}
        for file in files
    }


def correlation(first: list[float], second: list[float]) -> float:
    """Return Spearman's rank correlation."""
    return float(spearmanr(first, second).statistic)


def halves(rows: Rows) -> tuple[float, float]:
    """Return the mean length of the rows above the median confidence, and of the others."""
    middle = median(one.confidence for one in rows.values())
    sure = [one.tokens for one in rows.values() if one.confidence > middle]
    others = [one.tokens for one in rows.values() if one.confidence <= middle]
    return fmean(sure), fmean(others)


def main() -> None:
    """Print a line for each seed."""
    runs = [rows_of(Path(path)) for path in sys.argv[1:]]
    for seed in runs[0]:
        for name, run in zip(("without", "with"), runs, strict=False):
            rows = run[seed]
            length = correlation(
                [one.confidence for one in rows.values()], [one.tokens for one in rows.values()]
            )
            sure, others = halves(rows)
            sys.stdout.write(
                f"{seed} {name} prompts: with length {length:.2f}, "
                f"mean length of the sure half {sure:.1f}, of the other {others:.1f}\n"
            )
        if len(runs) > 1:
            shared = sorted({*runs[0][seed]} & {*runs[1][seed]})
            both = ([run[seed][key].confidence for key in shared] for run in runs[:2])
            sys.stdout.write(f"{seed} both: {correlation(*both):.2f} ({len(shared)} rows)\n")


if __name__ == "__main__":
    main()
