from collections.abc import Callable

import pytest

from response_tuning.artifacts import Completion, Message, Request
from response_tuning.grade.measures import measures, repeated_share

ASKED = Request(item_id="a", prompt=(Message(role="user", content="Why?"),))


def of(answer: Completion) -> dict[str, float]:
    (found,) = measures([answer])
    return dict(found)


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("one two three", 0.0),
        ("a b c d", 0.0),
        ("a b c d e f g h", 0.0),
        ("a b c d a b c d", 1 / 5),
        ("x x x x x x", 2 / 3),
        ("x\nx\tx  x x", 1 / 2),
    ],
)
def test_the_share_of_repeated_4_grams_is_known(text: str, share: float) -> None:
    assert repeated_share(text) == pytest.approx(share)


def test_an_answer_that_stopped_is_measured(completion: Callable[..., Completion]) -> None:
    answer = completion(ASKED, "So it is.", tokens=4)
    assert of(answer) == {
        "stopped": 1,
        "hit_limit": 0,
        "empty": 0,
        "distinct": 1,
        "looped": 0,
        "repeated_4gram_share": 0,
        "words_mean": 3,
        "tokens_mean": 4,
    }


@pytest.mark.parametrize(
    ("text", "looped"),
    [
        ("a b c d e f g a b c d e f g", 0),
        ("a b c d e f g h a b c d e f g h", 1),
        ("x x x x x x x x", 0),
        ("x x x x x x x x\nx", 1),
        ("a b c d e f g h i. Then a b c d e f\n\ng h i.", 1),
    ],
)
def test_a_text_loops_if_8_words_come_twice(
    text: str, looped: int, completion: Callable[..., Completion]
) -> None:
    assert of(completion(ASKED, text))["looped"] == looped


def test_the_mean_of_distinct_is_the_share_of_distinct_answers(
    completion: Callable[..., Completion],
) -> None:
    texts = ["Yes.", "No.", " Yes. ", "yes.", "", "\n", "Yes."]
    found = [dict(one)["distinct"] for one in measures([completion(ASKED, t) for t in texts])]
    assert found == [1 / 3, 1, 1 / 3, 1, 1 / 2, 1 / 2, 1 / 3]
    assert sum(found) / len(found) == pytest.approx(4 / 7)


def test_an_answer_that_ran_on_hit_the_limit(completion: Callable[..., Completion]) -> None:
    found = of(completion(ASKED, "x x x x x", "length"))
    assert (found["stopped"], found["hit_limit"]) == (0, 1)
    assert found["repeated_4gram_share"] == 0.5


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_white_space_is_an_empty_answer(text: str, completion: Callable[..., Completion]) -> None:
    assert of(completion(ASKED, text))["empty"] == 1


def test_lengths_are_given_only_where_the_engine_counted(
    completion: Callable[..., Completion],
) -> None:
    assert "tokens_mean" not in of(completion(ASKED, "So."))
    assert of(completion(ASKED, "", tokens=0))["tokens_mean"] == 0
