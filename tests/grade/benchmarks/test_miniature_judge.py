from collections.abc import Callable

import pytest

from response_tuning.artifacts import Completion, Score
from response_tuning.configs import GradeConfig
from response_tuning.errors import DataError
from response_tuning.grade import Benchmark, open_benchmark
from response_tuning.grade.benchmark import Totalled

Make = Callable[..., Completion]
CONFIG = GradeConfig(limit=12)


def graded(name: str, grade: Callable[[str, int], float], make: Make) -> dict[str, float]:
    """The totals of a judge that gives the answers of a prompt these grades."""
    rule = open_benchmark(name, CONFIG)
    assert isinstance(rule, Benchmark)
    assert isinstance(rule, Totalled)
    scores: list[Score] = []
    for number, item in enumerate(rule.items()):
        value = grade(item.prompt[0].content, number)
        reply = make(item, "5").model_copy(update={"expected_digit": value})
        scores += rule.score(item, reply)
    return {total.metric: total.value for total in rule.totals(scores)}


def looks_sound(prompt: str, number: int) -> float:
    answer = prompt.split("Answer: ")[1].removesuffix("\nGrade:")
    whole = answer[0].isupper() or answer[0].isdigit()
    return 9.0 if whole and answer.endswith((".", "!")) and answer.count(".") == 1 else 0.0


def test_a_judge_of_form_ranks_sound_answers_first_and_chooses_almost_as_an_oracle(
    completion: Make,
) -> None:
    found = graded("miniature-judge", looks_sound, completion)
    assert found["auroc_seen"] > 0.9
    assert found["auroc_unseen"] > 0.9
    assert found["random"] < found["best_of_4"] <= found["oracle"]


def test_a_judge_that_gives_all_the_same_grade_is_at_chance(completion: Make) -> None:
    found = graded("miniature-judge", lambda prompt, number: 4.5, completion)
    assert found["auroc_seen"] == found["auroc_unseen"] == 0.5
    assert found["best_of_4"] == pytest.approx(found["random"])


def test_only_a_judge_that_sees_the_reference_can_know_the_keys(completion: Make) -> None:
    def reference_looks_sound(prompt: str, number: int) -> float:
        lines = dict(line.split(": ", 1) for line in prompt.splitlines()[:-1])
        return looks_sound(f"Answer: {lines.get('Reference', lines['Answer'])}\nGrade:", number)

    with_reference = graded("miniature-judge-keys-reference", reference_looks_sound, completion)
    assert with_reference["auroc_seen"] > 0.9
    assert graded("miniature-judge-keys", reference_looks_sound, completion)["auroc_seen"] == 0.5


@pytest.mark.parametrize(
    ("name", "headings"),
    [
        ("miniature-judge", ["Question", "Answer"]),
        ("miniature-judge-response", ["Answer"]),
        ("miniature-judge-reference", ["Question", "Reference", "Answer"]),
        ("miniature-judge-shuffled", ["Question", "Answer"]),
    ],
)
def test_the_name_says_what_the_judge_sees(name: str, headings: list[str]) -> None:
    items = open_benchmark(name, CONFIG).items()
    assert len(items) == 4 * 12
    for item in items:
        lines = item.prompt[0].content.splitlines()
        assert [line.split(": ")[0] for line in lines] == [*headings, "Grade:"]


def test_shuffled_items_are_the_same_answers_behind_other_questions() -> None:
    plain = open_benchmark("miniature-judge").items()
    shuffled = open_benchmark("miniature-judge-shuffled").items()
    for one, other in zip(plain, shuffled, strict=True):
        question, answer = one.prompt[0].content.split("\nAnswer: ")
        another, same = other.prompt[0].content.split("\nAnswer: ")
        assert answer == same
        assert question != another


def test_an_answer_in_words_is_no_grade(completion: Make) -> None:
    rule = open_benchmark("miniature-judge", CONFIG)
    assert isinstance(rule, Benchmark)
    item = rule.items()[0]
    with pytest.raises(DataError, match=r"generate\.settings\.digits=true"):
        [*rule.score(item, completion(item, "9"))]
