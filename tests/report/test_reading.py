import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from response_tuning.artifacts import Score, write_jsonl
from response_tuning.errors import DataError
from response_tuning.report.reading import read_scores

Grade = Callable[..., None]
Add = Callable[..., None]


def test_scores_are_joined_by_variant_seed_and_item(run: Path, grade: Grade) -> None:
    grade("rt", {"correct": [1, 0, 1]}, seed=0)
    grade("rt", {"correct": [0, 0, 1]}, seed=3)
    grade("it", {"correct": [None, 1, 1]}, seed=0)
    (quiz,), _ = read_scores(run, ["it", "rt"])
    assert (quiz.name, quiz.seeds, quiz.items) == ("quiz", (0, 3), ("q0", "q1", "q2"))
    assert quiz.of("correct", "rt").tolist() == [[1, 0, 1], [0, 0, 1]]
    assert np.array_equal(quiz.of("correct", "it")[0], [np.nan, 1, 1], equal_nan=True)
    assert np.isnan(quiz.of("correct", "it")[1]).all()


def test_items_are_sorted_with_their_groups_and_scores(run: Path, grade: Grade) -> None:
    grade("rt", {"correct": list(range(12))}, groups=("even", "odd"))
    (quiz,), _ = read_scores(run, ["rt"])
    assert quiz.items[:4] == ("q0", "q1", "q10", "q11")
    assert quiz.groups[:4] == ("even", "odd", "even", "odd")
    assert quiz.of("correct", "rt")[0].tolist()[:4] == [0, 1, 10, 11]


def test_a_metric_may_be_of_some_items_only(run: Path, grade: Grade) -> None:
    grade("rt", {"refusal": [1, None], "false_refusal": [None, 0], "stopped": [1, 1]})
    (quiz,), missing = read_scores(run, ["rt"])
    assert np.isfinite(quiz.of("refusal", "rt")).tolist() == [[True, False]]
    assert missing == []


def test_benchmarks_with_accuracy_come_first_and_other_files_are_no_scores(
    run: Path, grade: Grade
) -> None:
    grade("rt", {"refusal": [1]}, benchmark="a")
    grade("rt", {"correct": [1]}, benchmark="c")
    grade("rt", {"strict": [1]}, benchmark="b")
    (run / "rt/seed-0/grade/manifest.json").write_text("{}")
    (run / "rt/seed-0.old").mkdir()
    assert [benchmark.name for benchmark in read_scores(run, ["rt"])[0]] == ["b", "c", "a"]


def test_what_is_missing_is_said(run: Path, grade: Grade) -> None:
    grade("rt", {"correct": [1, 0, 1], "strict": [1, 0, 1]})
    grade("it", {"correct": [1, None, None], "strict": [1, None, None]})
    grade("left-over", {"correct": [1]})
    (run / "base" / "seed-0").mkdir(parents=True)
    _, missing = read_scores(run, ["rt", "it", "base"])
    assert missing == [
        "base has no scores, so no table names it.",
        "left-over has scores, but is not a variant of this report; it was left out.",
        "quiz, it, seed 0: 2 of 3 prompts have no score by strict, correct.",
    ]


def test_cells_that_were_not_run_are_said_in_one_sentence_a_benchmark(
    run: Path, grade: Grade
) -> None:
    for seed in range(3):
        grade("rt", {"correct": [1, 0], "stopped": [1, 1]}, seed=seed)
    for number in range(6):
        grade(f"rt-{number}", {"correct": [1, 0], "stopped": [1, 1]}, seed=1)
    grade("it", {"correct": [1, 0]}, benchmark="other")
    names = ["rt", *(f"rt-{number}" for number in range(6)), "it", "base", "base-stop"]
    assert read_scores(run, names)[1] == [
        "base, base-stop have no scores, so no table names them.",
        "other: rt, rt-0, rt-1, rt-2 and 3 other variants have no scores.",
        "quiz: rt-0, rt-1, rt-2, rt-3 and 2 other variants have no scores with seeds 0, 2.",
        "quiz: it has no scores.",
    ]


def test_a_run_without_scores_is_one_line(run: Path) -> None:
    with pytest.raises(DataError, match=r"run: no variant has scores in seed-\*/grade/\*.jsonl"):
        read_scores(run, ["rt"])


@pytest.mark.parametrize(
    ("values", "fault"),
    [((1.0, 1.0), "a second score of item 'q' by 'm'"), ((float("inf"),), "the score inf of")],
)
def test_scores_that_cannot_be_averaged_are_refused(
    run: Path, values: tuple[float, ...], fault: str
) -> None:
    path = run / "rt/seed-0/grade/quiz.jsonl"
    path.parent.mkdir(parents=True)
    lines = [f'{{"item_id":"q","metric":"m","value":{value}}}\n' for value in values]
    path.write_text("".join(lines).replace("inf", "1e999"))
    with pytest.raises(DataError, match=re.escape(f"{path}: {fault}")):
        read_scores(run, ["rt"])


def test_a_group_that_one_file_leaves_out_is_taken_from_another(run: Path, grade: Grade) -> None:
    grade("rt", {"correct": [1, 1]})
    path = run / "it/seed-0/grade/quiz.jsonl"
    write_jsonl(path, [Score(item_id="q1", metric="correct", value=1, group="sums")])
    assert read_scores(run, ["rt", "it"])[0][0].groups == ("", "sums")


def test_weights_are_kept_where_any_is_not_1(run: Path, grade: Grade) -> None:
    grade("rt", {"drfr": [(1, 2), (0, 5)], "correct": [1, 0]})
    grade("it", {"drfr": [None, (0, 5)], "correct": [1, 0]})
    (quiz,), _ = read_scores(run, ["it", "rt"])
    assert quiz.weights.keys() == {"drfr"}
    expected = np.array([[np.nan, 5], [2, 5]])
    assert np.array_equal(quiz.weights["drfr"][:, 0], expected, equal_nan=True)


def test_a_weight_without_end_is_refused(run: Path) -> None:
    path = run / "rt/seed-0/grade/quiz.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"item_id":"q","metric":"m","value":1,"weight":1e999}\n')
    with pytest.raises(DataError, match="the weight inf of item 'q' by 'm'; grade it again"):
        read_scores(run, ["rt"])


def test_what_does_not_count_is_not_missing(run: Path, grade: Grade) -> None:
    grade("rt", {"precision": [1, None, None], "stopped": [1, 1, None]})
    grade("it", {"precision": [1, 1, 1], "stopped": [1, 1, 1]})
    _, missing = read_scores(run, ["rt", "it"])
    assert missing == ["quiz, rt, seed 0: 1 of 3 prompts have no score by precision, stopped."]


def test_totals_stand_beside_the_scores_of_their_variant_and_seed(
    run: Path, grade: Grade, total: Add
) -> None:
    for seed in (0, 1):
        grade("rt", {"win_rate": [1]}, seed=seed)
        total("rt", {"rate": (0.4 + seed, 0, 2)}, seed=seed)
    grade("it", {"win_rate": [1]})
    (quiz,), _ = read_scores(run, ["rt", "it"])
    assert quiz.totals.keys() == {"rate"}
    assert {seed: one.value for seed, one in quiz.totals["rate"]["rt"].items()} == {0: 0.4, 1: 1.4}
    assert "it" not in quiz.totals["rate"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('{"totals": [{"metric": "m"}]}', "totals: 0: value: Field required; grade it again"),
        ('{"total": []}', "totals: Field required"),
        ("[]", "expected a JSON object"),
        (
            '{"totals": [{"metric": "m", "value": 1e999, "low": 0, "high": 1, "n": 1}]}',
            "a value or limit that is not finite of 'm'; grade it again",
        ),
        (
            '{"totals": [{"metric": "correct", "value": 1, "low": 0, "high": 1, "n": 1}]}',
            "a second value of 'correct'; grade it again",
        ),
    ],
)
def test_totals_that_cannot_be_used_are_refused(
    run: Path, grade: Grade, content: str, fault: str
) -> None:
    grade("rt", {"correct": [1]})
    path = run / "rt/seed-0/grade/quiz.totals.json"
    path.write_text(content)
    with pytest.raises(DataError, match=re.escape(f"{path}: {fault}")):
        read_scores(run, ["rt"])
