import argparse
import json
import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/answer_ranking_labels.py"))
Row: Any = SCRIPT["Row"]
RESULTS = Path(__file__).parents[2] / "benchmarks/answer_ranking_labels.json"


def both(preferred: float, other: float) -> list[dict[str, float]]:
    names = (*SCRIPT["MEASURES"], "echo")
    return [dict.fromkeys(names, preferred), dict.fromkeys(names, other)]


def test_the_preferred_answer_is_right_and_equal_values_are_half_right() -> None:
    row = Row("set", "Why?", ("So.", "No."), 0)
    found = [
        (row, both(0.9, 0.1)),
        (row, both(0.1, 0.9)),
        (row._replace(prompt="How?"), both(0.5, 0.5)),
        (row._replace(prompt="Who?", preferred=1), both(0.1, 0.9)),
    ]
    figures = SCRIPT["figures"](found, seed=0)
    assert figures["ranked"][0] == (1 + 0 + 0.5 + 1) / 4
    assert figures["ranked"][1] <= figures["ranked"][0] <= figures["ranked"][2]
    assert figures["ranked - length"] == [0, 0, 0]
    assert figures["mean ranked, preferred"][0] == pytest.approx((0.9 + 0.1 + 0.5 + 0.9) / 4)
    assert (figures["n"], figures["prompts"]) == (4, 3)


def test_rows_of_one_prompt_are_resampled_together() -> None:
    apart = SCRIPT["_interval"]([1.0, 0.0] * 20, [f"q{n}" for n in range(40)], 0)
    together = SCRIPT["_interval"]([1.0, 0.0] * 20, [f"q{n % 2}" for n in range(40)], 0)
    assert apart[0] == together[0] == 0.5
    assert together[1:] == [0, 1]
    assert 0.3 < apart[1] < apart[2] < 0.7


def test_rows_of_all_sets_take_turns_and_have_prompts_of_their_own_set() -> None:
    rows = {
        name: [Row(name, f"{name} {n} and more words", ("a b c", "d"), 0) for n in range(size)]
        for name, size in (("one", 9), ("two", 4))
    }
    how = argparse.Namespace(pairs=5, others=3, words=2, seed=0)
    drawn = SCRIPT["drawn_rows"](rows, how)
    assert [row.part for row in drawn] == ["one", "two"] * 4 + ["one"]
    for row in drawn:
        assert len(row.prompt.split()) == 2
        assert len(row.others) == len({*row.others}) == 3
        assert row.prompt not in row.others
        assert all(other.startswith(row.part) for other in row.others)
    assert drawn == SCRIPT["drawn_rows"](rows, how)


def test_the_easy_task_gives_every_prompt_an_answer_to_another_one() -> None:
    crossed = SCRIPT["_crossed"]({f"q{n}": f"a{n}" for n in range(7)})
    assert {row.prompt[1:] for row in crossed} == {str(n) for n in range(7)}
    for row in crossed:
        assert row.answers[0][1:] == row.prompt[1:] != row.answers[1][1:]
        assert row.preferred == 0


def test_the_committed_figures_are_of_the_parts_and_have_intervals() -> None:
    committed = json.loads(RESULTS.read_text("utf-8"))
    assert committed.pop("schema") == 1
    assert committed
    for name, scorer in committed.items():
        assert set(SCRIPT["POOLS"]) | {"tulu-other-prompt"} <= set(scorer["parts"]), name
        for part in scorer["parts"].values():
            for measure in SCRIPT["MEASURES"]:
                mean, low, high = part[measure]
                assert 0 <= low <= mean <= high <= 1
