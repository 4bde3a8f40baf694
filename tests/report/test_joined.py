from collections.abc import Callable
from pathlib import Path

import numpy as np

from response_tuning.metrics import Display
from response_tuning.report.joined import BenchmarkScores
from response_tuning.report.reading import read_scores

Grade = Callable[..., None]
Add = Callable[..., None]
DISPLAY = Display(("length_controlled_win_rate", "win_rate"), {"depth": (1, 5)})


def read(run: Path, *variants: str) -> BenchmarkScores:
    (quiz,), _ = read_scores(run, variants, benchmarks={"quiz": DISPLAY})
    return quiz


def test_the_headline_metrics_come_first_and_alone_unless_there_are_none(
    run: Path, grade: Grade
) -> None:
    grade("rt", {"words": [3], "correct": [1], "strict": [0]}, benchmark="a")
    grade("rt", {"words": [3], "beauty": [0.4]}, benchmark="b")
    a, b = read_scores(run, ["rt"])[0]
    assert a.metrics == ("strict", "correct", "words")
    assert a.headline == a.accuracy == ("strict", "correct")
    assert b.headline == b.metrics == ("beauty", "words")
    assert b.accuracy == ()


def test_totals_are_part_of_the_headline(run: Path, grade: Grade, total: Add) -> None:
    grade("rt", {"win_rate": [1], "win": [1]})
    total("rt", {"length_controlled_win_rate": (0.5, 0.4, 0.6)})
    assert read(run, "rt").headline == ("length_controlled_win_rate", "win_rate")
    assert read(run, "rt").metrics == ("win_rate", "win")


def test_what_is_binary_and_what_is_a_share_is_read_off_all_scores(run: Path, grade: Grade) -> None:
    grade("rt", {"correct": [1, 0], "overlap": [0, 1], "words": [0, 1], "depth": [1, 1]})
    grade("it", {"correct": [1, 1], "overlap": [0.5, 1], "words": [7, None], "depth": [1, 1]})
    assert read(run, "rt", "it").binary == {"correct", "depth"}
    assert read(run, "rt", "it").shares == {"correct", "overlap"}  # depth goes from 1 to 5


def test_metrics_with_weights_are_ratios_and_others_are_means(run: Path, grade: Grade) -> None:
    grade("rt", {"drfr": [(0.5, 2), (1, 1)], "correct": [1, 0]})
    quiz = read(run, "rt")
    assert quiz.ratios == {"drfr"}
    assert quiz.parts("drfr", "rt").tolist() == [[[1, 1]], [[2, 1]]]
    assert quiz.parts("correct", "rt").tolist() == [[[1, 0]], [[1, 1]]]


def test_a_metric_that_only_some_answers_to_a_prompt_have_is_a_ratio(
    run: Path, grade: Grade
) -> None:
    answered = {"stopped": [1, 1, 1]}
    grade("rt", {"precision": [1, None, 0], "recall": [1, 0, None], **answered})
    grade("it", {"precision": [1, 1, None], "recall": [1, 1, None], **answered})
    quiz = read(run, "rt", "it")
    assert quiz.ratios == {"precision"}
    assert quiz.known("precision").all()
    assert quiz.parts("precision", "rt").tolist() == [[[1, 0, 0]], [[1, 0, 1]]]
    assert quiz.known("recall")[:, 0].tolist() == [[True, True, False]] * 2


def test_seeds_of_one_variant_can_make_a_metric_a_ratio(run: Path, grade: Grade) -> None:
    grade("rt", {"precision": [1, None], "stopped": [1, 1]}, seed=0)
    grade("rt", {"precision": [1, 0], "stopped": [1, 1]}, seed=1)
    assert read(run, "rt").ratios == {"precision"}


def test_what_was_not_graded_or_could_not_be_read_is_not_known_to_count_for_nothing(
    run: Path, grade: Grade
) -> None:
    grade("rt", {"refusal": [None, 1, 0], "unclassified": [1, 0, 0]})
    grade("it", {"refusal": [1, 1, None], "unclassified": [0, 0, None]})
    quiz = read(run, "rt", "it")
    assert quiz.ratios == set()
    grade("rt", {"refusal": [None, (1, 2), 0], "unclassified": [1, 0, 0]})
    quiz = read(run, "rt", "it")
    assert quiz.ratios == {"refusal"}
    assert quiz.known("refusal")[:, 0].tolist() == [[False, True, True], [True, True, False]]
    assert np.isnan(quiz.parts("refusal", "rt")[:, 0, 0]).all()


def test_a_share_that_was_not_checked_leaves_the_others_known(run: Path, grade: Grade) -> None:
    grade("rt", {"prompt_strict": [None, 1], "instruction_strict": [0.5, 1], "unchecked": [0.5, 0]})
    grade("it", {"prompt_strict": [1, 1], "instruction_strict": [1, 1], "unchecked": [0, 0]})
    quiz = read(run, "rt", "it")
    assert quiz.ratios == set()
    assert quiz.known("prompt_strict")[0].tolist() == [[False, True]]
    assert quiz.known("instruction_strict").all()


def test_a_file_without_any_score_by_a_metric_makes_it_no_ratio(run: Path, grade: Grade) -> None:
    grade("rt", {"correct": [1, 0], "stopped": [1, 1]})
    grade("it", {"stopped": [1, 1]})
    assert read(run, "rt", "it").ratios == set()
