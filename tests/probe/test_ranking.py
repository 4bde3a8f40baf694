import math
import random
from collections.abc import Sequence

import pytest

from response_tuning.artifacts import Message, Score
from response_tuning.errors import DataError
from response_tuning.likelihoods import Likelihood, Pair, Unscored
from response_tuning.pairing import draws, shared_words
from response_tuning.probe.ranking import (
    ITEMS_AT_ONCE,
    RANKED_BY,
    TIE_NATS,
    ResponseFit,
    rank,
    ranked,
    verdict,
)

RESPONSES = {f"q{n}": f"answer {n // 2}" for n in range(40)}  # each answer is given twice


def likelihood(total: float, tokens: int = 10) -> Likelihood:
    return Likelihood(total, tokens, math.log(0.5), 0.25)


def fit(total: float, alone: float = -100.0, tokens: int = 10, words: float = 0.0) -> ResponseFit:
    return ResponseFit(likelihood(total, tokens), likelihood(alone, tokens), words)


def by_metric(scores: Sequence[Score]) -> dict[str, Score]:
    found = {score.metric: score for score in scores}
    assert len(found) == len(scores)
    return found


def test_no_item_is_compared_with_its_own_text_or_twice_with_another_item() -> None:
    for item, drawn in draws(RESPONSES, 5, seed=0).items():
        assert len(set(drawn)) == 5
        assert RESPONSES[item] not in {RESPONSES[other] for other in drawn}


def test_every_item_with_another_text_can_be_drawn() -> None:
    drawn = {other for seed in range(500) for other in draws(RESPONSES, 1, seed)["q4"]}
    assert drawn == {*RESPONSES} - {"q4", "q5"}


def test_a_model_that_likes_short_and_frequent_texts_ranks_by_chance() -> None:
    responses = {f"q{n}": f"yes {n % 10}" if n < 200 else f"no, for {n}" for n in range(400)}
    shares = []
    for item, others in draws(responses, 20, seed=0).items():
        own = len(responses[item])
        lengths = [len(responses[other]) for other in others]
        decided = [own < length for length in lengths if length != own]
        shares.append(sum(decided) / len(decided))
    assert sum(shares) / len(shares) == pytest.approx(0.5, abs=0.02)


def test_draws_are_by_seed_and_name() -> None:
    assert draws(RESPONSES, 5, seed=0) == draws(RESPONSES, 5, seed=0) != draws(RESPONSES, 5, seed=1)
    shuffled = dict(sorted(RESPONSES.items(), key=lambda pair: pair[1]))
    assert draws(shuffled, 5, seed=0) == draws(RESPONSES, 5, seed=0)
    both = draws(RESPONSES, 5, seed=0)
    assert both["q0"] != both["q1"], "items of one text draw by themselves"


def test_fewer_others_than_asked_for_are_all_drawn() -> None:
    found = draws({"a": "x", "b": "y", "c": "z"}, 5, seed=0)
    assert {item: set(others) for item, others in found.items()} == {
        "a": {"b", "c"},
        "b": {"a", "c"},
        "c": {"a", "b"},
    }


def test_responses_that_are_all_the_same_cannot_be_ranked() -> None:
    with pytest.raises(DataError, match="all of these are equal"):
        draws({"a": "x", "b": "x"}, 5, seed=0)


def test_each_measure_ranks_by_its_own_number() -> None:
    own = fit(-20.0, alone=-30.0, tokens=10)  # -2 a token, pmi 10
    others = {
        "shorter": fit(-10.0, alone=-12.0, tokens=2),  # -5 a token, pmi 2
        "longer": fit(-40.0, alone=-60.0, tokens=40),  # -1 a token, pmi 20
    }
    found = by_metric([*ranked("a", own, others)])
    assert found["ranked_total"].value == 0.5
    assert found["ranked_total"].explanation == "1 of 2"
    assert found["ranked_per_token"].value == 0.5
    assert found["ranked_pmi"].value == 0.5
    found = by_metric([*ranked("a", own, {"shorter": others["shorter"]})])
    assert [found[f"ranked_{name}"].value for name in RANKED_BY] == [0, 1, 1]
    assert found["pmi"].value == 10
    assert found["tied"].value == 0


def test_a_tie_is_neither_a_win_nor_a_loss_and_is_named() -> None:
    own = fit(-20.0)
    others = {"b": fit(-20.0 + TIE_NATS / 2), "c": fit(-30.0), "d": fit(-10.0), "e": fit(-11.0)}
    found = by_metric([*ranked("a", own, others)])
    assert found["ranked_total"].value == pytest.approx(1 / 3)
    assert found["tied"].value == pytest.approx(3 / 12)
    assert found["tied"].explanation == "total: b, per_token: b, pmi: b"


def test_an_item_that_ties_with_all_has_no_rank() -> None:
    found = by_metric([*ranked("a", fit(-20.0), {"b": fit(-20.0)})])
    assert set(found) == {"tied", "pmi", "ranked_words"}
    assert found["tied"].value == 1


def test_words_rank_without_a_model_and_by_chance_where_they_tie() -> None:
    others = {"b": fit(-9.0, words=0.1), "c": fit(-9.0, words=0.5), "d": fit(-9.0, words=0.9)}
    assert by_metric([*ranked("a", fit(-20.0, words=0.5), others)])["ranked_words"].value == 0.5
    assert by_metric([*ranked("a", fit(-20.0, words=0.6), others)])["ranked_words"].value == 2 / 3
    assert by_metric([*ranked("a", fit(-20.0), {"b": fit(-9.0)})])["ranked_words"].value == 0.5


def test_shared_words_are_a_share_of_the_responses_words_by_their_rarity() -> None:
    asked = {"a": prompt("Who paints the SKY?"), "b": prompt("And the sea?"), "c": prompt("Why")}
    said = {"a": "The sky, painted.", "b": "The sea, the sea!", "c": "The end of the sea"}
    share = shared_words(asked, said)
    assert share("a", "a") == pytest.approx(0.5), "sky of sky and painted; all say 'the'"
    assert share("b", "b") == 1
    assert share("b", "c") == pytest.approx(math.log(1.5) / (math.log(1.5) + 2 * math.log(3)))
    assert share("c", "b") == 0
    assert shared_words({"a": prompt("x")}, {"a": ""})("a", "a") == 0


def test_ranks_of_noise_are_even() -> None:
    rng = random.Random(0)
    values = [
        score.value
        for n in range(2000)
        for score in ranked(
            str(n), fit(rng.random()), {str(k): fit(rng.random()) for k in range(5)}
        )
        if score.metric == "ranked_total"
    ]
    assert sum(values) / len(values) == pytest.approx(0.5, abs=0.02)


def prompt(text: str) -> tuple[Message, ...]:
    return (Message(role="user", content=text),)


def model(pairs: Sequence[Pair]) -> list[Likelihood | Unscored]:
    """Finds a response likelier by 5 nats where its number is the instruction's."""
    found: list[Likelihood | Unscored] = []
    for asked, response in pairs:
        number = response.split()[-1]
        if "too long" in response:
            found.append(Unscored("too long"))
        else:
            own = bool(asked) and asked[0].content == f"question {number}"
            found.append(likelihood(-20.0 - int(number) + 5 * own))
    return found


def items(count: int) -> tuple[dict[str, tuple[Message, ...]], dict[str, str]]:
    names = [f"q{n}" for n in range(count)]
    asked = {name: prompt(f"question {n}") for n, name in enumerate(names)}
    return asked, {name: f"answer {n}" for n, name in enumerate(names)}


def test_a_model_ranks_every_item_by_what_it_says_of_the_pairs() -> None:
    prompts, responses = items(ITEMS_AT_ONCE + 20)
    heard: list[tuple[int, int]] = []
    drawn = draws(responses, 5, seed=0)
    ranking = rank(prompts, drawn, responses, model, lambda *n: heard.append(n))
    assert heard == [(100, 120), (120, 120)]
    assert not ranking.left_out
    for name in prompts:
        found = by_metric([score for score in ranking.scores if score.item_id == name])
        assert found["pmi"].value == 5
        assert found["ranked_pmi"].value == 1
        number = int(name[1:])
        others = [int(other[1:]) for other in drawn[name]]
        wins = sum(other > number - 5 for other in others if other != number - 5)
        ties = number - 5 in others
        assert found["ranked_total"].value == wins / (5 - ties)
        assert found["log_p_per_token"].value == (5 - 20 - number) / 10
        assert found["log_p_per_token_alone"].value == (-20 - number) / 10
        assert found["stop_at_end"].value == pytest.approx(0.5)
        assert found["stop_early"].value == 0.25


def test_what_cannot_be_scored_is_counted_with_its_reason() -> None:
    prompts, responses = items(4)
    responses["q1"] = "too long 1"
    drawn = {"q0": ("q1", "q2"), "q1": ("q0",), "q2": ("q1",), "q3": ("q0",)}
    ranking = rank(prompts, drawn, responses, model)
    assert {score.item_id for score in ranking.scores} == {"q0", "q3"}
    assert ranking.left_out == {
        "items: too long": 1,
        "items: no other response can be scored": 1,
        "comparisons: the other response cannot be scored": 2,
    }


def test_nothing_that_can_be_scored_is_one_line() -> None:
    prompts, responses = items(2)
    responses = {name: f"too long {n}" for n, name in enumerate(responses)}
    with pytest.raises(DataError, match="no response can be ranked: 2 items: too long"):
        rank(prompts, draws(responses, 1, 0), responses, model)


def test_a_model_that_finds_all_equally_likely_ranks_nothing() -> None:
    prompts, responses = items(3)
    with pytest.raises(DataError, match="no response can be ranked: all of them tie"):
        rank(
            prompts,
            draws(responses, 2, 0),
            responses,
            lambda pairs: [likelihood(-9.0)] * len(pairs),
        )


@pytest.mark.parametrize(
    ("ranked_low", "pmi_low", "words", "said"),
    [
        (0.76, 0.1, 0.80, "strong"),
        (0.74, 5.0, 0.80, "weak"),
        (0.99, -0.1, 0.80, "weak"),
        (0.51, -3.0, 0.80, "weak"),
        (0.50, 9.0, 0.80, "none"),
        (0.20, -9.0, 0.80, "none"),
        (0.51, 0.1, 0.50, "strong"),
        (0.49, 0.1, 0.50, "none"),
    ],
)
def test_the_verdict_holds_the_lower_ends_of_both_intervals_against_words_and_chance(
    ranked_low: float, pmi_low: float, words: float, said: str
) -> None:
    assert verdict(ranked_low, pmi_low, words) == said
