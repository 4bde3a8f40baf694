from collections.abc import Callable

import pytest

from response_tuning.artifacts import Completion, Message, Request
from response_tuning.grade.measures import measures, repeated_share

ASKED = Request(item_id="a", prompt=(Message(role="user", content="Why?"),))


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
    assert dict(measures(answer)) == {
        "stopped": 1,
        "hit_limit": 0,
        "empty": 0,
        "repeated_4gram_share": 0,
        "tokens_mean": 4,
    }


def test_an_answer_that_ran_on_hit_the_limit(completion: Callable[..., Completion]) -> None:
    found = dict(measures(completion(ASKED, "x x x x x", "length")))
    assert (found["stopped"], found["hit_limit"]) == (0, 1)
    assert found["repeated_4gram_share"] == 0.5


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_white_space_is_an_empty_answer(text: str, completion: Callable[..., Completion]) -> None:
    assert dict(measures(completion(ASKED, text)))["empty"] == 1


def test_lengths_are_given_only_where_the_engine_counted(
    completion: Callable[..., Completion],
) -> None:
    assert "tokens_mean" not in dict(measures(completion(ASKED, "So.")))
    assert dict(measures(completion(ASKED, "", tokens=0)))["tokens_mean"] == 0
