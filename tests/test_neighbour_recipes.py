"""The effects of the neighbouring methods at full size, which a wrong loss would not have."""

import csv
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest

RECIPES = Path(__file__).parents[1] / "recipes"
Scores = dict[tuple[str, str], list[float]]


def scores(recipe: str, out: Path, metric: str, *variants: str) -> Scores:
    """Run some variants of a recipe; return the percentages of each and of each benchmark."""
    only = [argument for name in variants for argument in ("--only", name)]
    command = [sys.executable, "-m", "response_tuning", "run", str(RECIPES / recipe)]
    subprocess.run([*command, *only, "--out", str(out)], check=True)
    found: Scores = {}
    with (out / "report" / "per_seed.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["metric"] == metric:
                key = row["variant"], row["benchmark"]
                found.setdefault(key, []).append(100 * float(row["value"]))
    return found


def of(found: Scores, variant: str) -> Iterator[float]:
    """The mean of a variant over its seeds, on each benchmark."""
    return (fmean(values) for (name, _), values in found.items() if name == variant)


@pytest.mark.exhaustive
def test_who_continues_a_text_decides_whether_it_teaches_to_answer(tmp_path: Path) -> None:
    """The bar of three seeds: the teacher at least 20 points above the documents' own halves."""
    found = scores(
        "neighbours/continuations.yaml", tmp_path / "out", "strict", "original", "teacher"
    )
    originals, teachers = ([*of(found, name)] for name in ("original", "teacher"))
    assert max(originals) <= 2
    assert all(t - o >= 20 for t, o in zip(teachers, originals, strict=True))


@pytest.mark.exhaustive
def test_preferences_move_what_is_preferred_and_reversed_ones_move_it_back(tmp_path: Path) -> None:
    """The bars: DPO 25 points, RT-DPO 12, reversed labels below 0, random ones less than 5."""
    names = ("dpo", "rt-dpo", "dpo-flipped", "rt-dpo-flipped", "dpo-random", "rt-dpo-random")
    found = scores("miniature-preferences.yaml", tmp_path / "out", "answer_first", "sft", *names)
    start = fmean(of(found, "sft"))
    moved = {name: fmean(of(found, name)) - start for name in names}
    assert moved["dpo"] >= 25 and moved["rt-dpo"] >= 12
    assert moved["dpo-flipped"] < -5 and moved["rt-dpo-flipped"] < -5
    assert abs(moved["dpo-random"]) < 5 and abs(moved["rt-dpo-random"]) < 5
