import math
from collections.abc import Callable, Sequence

import pytest

from response_tuning.artifacts import Message
from response_tuning.errors import DataError
from response_tuning.likelihoods import Likelihood, Pair, Unscored
from response_tuning.probe.predictors import (
    BASELINES,
    PREDICTORS,
    crossed,
    discrimination,
    from_likelihoods,
    spoilt,
)

PROMPTS = {f"q{n}": (Message(role="user", content=f"word{n} please"),) for n in range(4)}
RESPONSES = {f"q{n}": f"This is word{n} indeed." for n in range(4)}
DRAWN = {f"q{n}": (f"q{(n + 1) % 4}",) for n in range(4)}
Total = Callable[[Pair], float]


def scorer(total: Total, ending: Total = lambda _: -2.0) -> Callable[..., list[Likelihood]]:
    def score(pairs: Sequence[Pair]) -> list[Likelihood]:
        return [Likelihood(total(pair), 5, ending(pair), 0.1) for pair in pairs]

    return score


def knows(pair: Pair) -> float:
    """A base that expects the word of the instruction, and 10 nats more without one."""
    if not pair.prompt:
        return -20.0
    asked = pair.prompt[-1].content.split()[0]
    return -5.0 if asked in pair.response else -30.0


def values(total: Total) -> dict[str, float]:
    both = crossed(PROMPTS, RESPONSES, DRAWN, scorer(total))
    return from_likelihoods(PROMPTS, RESPONSES, both)


def test_a_base_that_knows_which_response_is_whose_has_the_highest_values() -> None:
    found = values(knows)
    assert found["response_ranking"] == found["ranking_by_gain"] == found["ifd"] == 1
    assert found["word_overlap"] == 1
    assert found["gain_over_words"] == 0
    assert found["stop_gap"] == 2
    assert found["perplexity"] == 4, "20 nats over 5 tokens"


def test_task_specificity_compares_with_the_mean_probability_under_all_instructions() -> None:
    # Each response is scored under its own instruction and one other: -5 and -30.
    mean = math.log((math.exp(-5.0) + math.exp(-30.0)) / 2)
    assert values(knows)["task_specificity"] == pytest.approx(-5.0 - mean)


def test_a_base_that_no_instruction_helps_is_below_words_and_has_no_ifd() -> None:
    found = values(lambda pair: -20.0 if not pair.prompt else -25.0 - len(pair.prompt[0].content))
    assert found["ifd"] == 0
    assert math.isnan(found["response_ranking"]), "all of them tie"
    assert found["task_specificity"] == pytest.approx(0.0)


def test_items_that_cannot_be_scored_are_left_out_and_counted() -> None:
    def without_one(pairs: Sequence[Pair]) -> list[Likelihood | Unscored]:
        scored = scorer(knows)(pairs)
        return [
            Unscored("too long") if "word3" in pair.response else one
            for pair, one in zip(pairs, scored, strict=True)
        ]

    both = crossed(PROMPTS, RESPONSES, DRAWN, without_one)
    assert both.unscored == 1
    assert {*both.alone} == {"q0", "q1", "q2"}
    assert not any("q3" in pair for pair in both.given)


def test_fewer_than_two_scorable_responses_are_an_error_with_the_reason() -> None:
    with pytest.raises(DataError, match=r"0 of 4 responses can be scored.*too long"):
        crossed(PROMPTS, RESPONSES, DRAWN, lambda pairs: [Unscored("too long") for _ in pairs])


def test_a_response_is_spoilt_in_four_ways_that_all_differ_from_it() -> None:
    assert spoilt("Red is a colour.", "Ten.") == {
        "truncated": "Red is",
        "off-topic": "Ten.",
        "shouted": "RED IS A COLOUR.",
        "unended": "Red is a colour. Ten.",
    }
    assert spoilt("TEN.", "Six.").keys() == {"off-topic", "unended"}


def test_a_base_that_never_ends_prefers_the_response_that_runs_on() -> None:
    def never_ends(pair: Pair) -> float:
        return -1.0 if len(pair.response) > 30 else -40.0

    def text(pair: Pair) -> float:
        return -float(len(pair.response)) / 10

    found = discrimination(PROMPTS, RESPONSES, DRAWN, scorer(text, never_ends))
    # It loses to both longer forms, ties with the others in their end, and wins by length or ties.
    assert found["discrimination"] < 0.5


def test_a_letter_is_right_if_it_names_the_response_wherever_that_stands() -> None:
    def reads(pair: Pair) -> float:
        """A base that says which option has the word of the instruction, once and in order."""
        lines = pair.prompt[-1].content.split("\n")
        if pair.response not in ("A", "B"):
            return knows(pair)
        own = next(
            (
                line[0]
                for line in lines
                if line[2:].strip() in RESPONSES.values() and lines[0].split()[0] in line
            ),
            "",
        )
        return -0.1 if pair.response == own else -5.0

    found = discrimination(PROMPTS, RESPONSES, DRAWN, scorer(reads))
    assert found["discrimination_letter"] == 1
    always_a = discrimination(
        PROMPTS, RESPONSES, DRAWN, scorer(lambda pair: -1.0 if pair.response == "A" else -2.0)
    )
    assert 0 < always_a["discrimination_letter"] < 1


def test_there_are_fourteen_predictors_and_no_baseline_is_one() -> None:
    assert len(PREDICTORS) == 14
    assert not {*PREDICTORS} & {*BASELINES}
