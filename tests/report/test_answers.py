from collections.abc import Callable
from pathlib import Path

import pytest

from response_tuning.artifacts import Score, write_jsonl
from response_tuning.report.answers import EXAMPLE_CHARACTERS, disagreements, mark, read_answers
from response_tuning.report.reading import read_scores

Grade = Callable[..., None]
Answer = Callable[..., None]


@pytest.mark.parametrize(
    ("metric", "value", "sign"),
    [
        ("strict", "1", "\u2713"), ("strict", "0", "\u2717"),
        ("false_refusal", "0", "\u2713"), ("false_refusal", "1", "\u2717"),
        ("refusal", "1", "\u2713"), ("hit_limit", "0", "\u2713"),
        ("the_users_own", "0", ""), ("the_users_own", "1", ""),
    ],
)  # fmt: skip
def test_a_cross_never_marks_what_one_wants(metric: str, value: str, sign: str) -> None:
    word = "yes" if value == "1" else "no"
    assert mark(metric, value) == (sign, f"{metric.replace('_', ' ')}: {word}")


def test_examples_are_one_for_each_benchmark_where_the_variants_disagree(
    run: Path, grade: Grade, answer: Answer
) -> None:
    for benchmark in ("a", "b"):
        grade("rt", {"strict": [1, 1, 0]}, benchmark=benchmark)
        grade("it", {"strict": [1, 0, 0]}, benchmark=benchmark)
        answer("rt", ["yes", "two", "x"], benchmark=benchmark)
        answer("it", ["yes", "three", "y"], benchmark=benchmark)
    answered = read_answers(run, read_scores(run, ["rt", "it"])[0])
    found = disagreements(answered, ["rt", "it"], "strict")
    texts = [(one.benchmark, [said.text for said in one.answers]) for one in found]
    assert texts[:2] == [("a", ["two", "three"]), ("b", ["two", "three"])]
    assert texts[2] == ("a", ["x", "y"])  # then unlike texts
    assert [said.marks[0].sign for said in found[0].answers] == ["\u2713", "\u2717"]


def test_the_baselines_take_turns(run: Path, grade: Grade, answer: Answer) -> None:
    for benchmark in ("a", "b"):
        grade("rt", {"strict": [1, 0]}, benchmark=benchmark)
        grade("stop", {"strict": [0, 0]}, benchmark=benchmark)
        grade("it", {"strict": [1, 1]}, benchmark=benchmark)
        for name in ("rt", "stop", "it"):
            answer(name, [f"{name} one", f"{name} two"], benchmark=benchmark)
    answered = read_answers(run, read_scores(run, ["rt", "stop", "it"])[0])
    first, second, *_ = disagreements(answered, ["rt", "stop", "it"], "strict")
    assert first.answers[0].text == "rt one"  # unlike stop
    assert second.answers[0].text == "rt two"  # unlike it


def test_where_all_agree_there_is_no_example(run: Path, grade: Grade, answer: Answer) -> None:
    for name in ("rt", "it"):
        grade(name, {"strict": [1, 0]})
        answer(name, ["same", "same"])
    answered = read_answers(run, read_scores(run, ["rt", "it"])[0])
    assert disagreements(answered, ["rt", "it"], "strict") == []


def test_long_answers_are_shortened(run: Path, grade: Grade, answer: Answer) -> None:
    for name, right in (("rt", 1), ("it", 0)):
        grade(name, {"strict": [right]})
        answer(name, [name * 9999])
    answered = read_answers(run, read_scores(run, ["rt", "it"])[0])
    (found,) = disagreements(answered, ["rt", "it"], "strict")
    assert [len(said.text) for said in found.answers] == [EXAMPLE_CHARACTERS] * 2


def test_reasons_name_the_metrics_that_they_are_about(run: Path, answer: Answer) -> None:
    scores = [
        Score(item_id="q0", metric="refusal", value=0, explanation="It complies."),
        Score(item_id="q0", metric="compliance", value=1, explanation="It complies."),
        Score(item_id="q0", metric="stopped", value=1),
    ]
    write_jsonl(run / "rt" / "seed-0" / "grade" / "quiz.jsonl", scores)
    answer("rt", ["Here it is."])
    (answered,) = read_answers(run, read_scores(run, ["rt"])[0])
    assert answered.reasons == {"rt": {"q0": "refusal, compliance: It complies."}}
