import pytest

from response_tuning.grade.answer_ranking import (
    METRICS,
    AnswerFit,
    SharedWords,
    answer_scores,
    says_nothing,
)

SHARED = SharedWords(0.5, (0.2, 0.5, 0.7, 0.0))


def scores(fit: AnswerFit | None, nothing: str = "") -> dict[str, float]:
    found = list(answer_scores("a", fit, SHARED, nothing))
    assert [one.metric for one in found] == list(METRICS)
    return {one.metric: one.value for one in found}


def test_the_rank_is_the_share_of_other_prompts_under_which_the_answer_is_less_probable() -> None:
    found = scores(AnswerFit(-20.0, (-30.0, -25.0, -10.0, -20.00005), tokens=10))
    assert found["answer_ranked"] == pytest.approx((2 + 0.5) / 4)
    assert found["answer_gain"] == pytest.approx((-20 + 21.2500125) / 10)
    assert found["answer_ranked_words"] == (2 + 0.5) / 4
    assert found["echo"] == 0


def test_a_difference_of_rounding_is_a_tie_and_a_larger_one_is_not() -> None:
    assert scores(AnswerFit(-20.0, (-20.00009,), 5))["answer_ranked"] == 0.5
    assert scores(AnswerFit(-20.0, (-20.0002,), 5))["answer_ranked"] == 1
    assert scores(AnswerFit(-20.0, (-19.9998,), 5))["answer_ranked"] == 0


@pytest.mark.parametrize("nothing", ["echo", "empty"])
def test_an_answer_that_says_nothing_ranks_by_chance(nothing: str) -> None:
    assert scores(None, nothing) == {
        "answer_ranked": 0.5,
        "answer_gain": 0.0,
        "answer_ranked_words": 0.5,
        "echo": float(nothing == "echo"),
    }


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("...", ""),
        ("Why is the sky so blue today?", "echo"),
        ("Why is the sky so blue today? " * 9, "echo"),
        ("Why is the sky so blue today? Light is scattered by the air, blue most.", ""),
        ("The sky is blue because of the air.", ""),
    ],
)
def test_an_echo_is_mostly_copied_from_its_prompt(answer: str, why: str) -> None:
    assert says_nothing(answer, "Why is the sky so blue today?") == why
