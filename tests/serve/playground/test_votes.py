from typing import Any

import pytest
from pydantic import ValidationError

from response_tuning.artifacts import Message, Sampling
from response_tuning.errors import ConfigError
from response_tuning.serve.playground.records import Answer
from response_tuning.serve.playground.votes import Ballot, counted


def answer(pane: str, *words: str) -> Answer:
    roles = ("user", "assistant")
    prompt = tuple(Message(role=roles[i % 2], content=text) for i, text in enumerate(words))  # type: ignore[arg-type]
    return Answer(
        id=f"id-{pane}", pane=pane, model=f"model-{pane}", template="t", template_name="tulu",
        adapter="none", prompt=prompt, sampling=Sampling(), response=f"I am {pane}.",
        finish_reason="stop", seconds=1.0, at="now",
    )  # fmt: skip


def ballot(choice: Any = 0, **fields: Any) -> Ballot:
    return Ballot.model_validate({"answers": ["x", "y"], "choice": choice, "blind": True} | fields)


def test_a_vote_says_which_pane_wrote_what_in_the_order_that_was_shown() -> None:
    vote = counted(ballot(1), [answer("rt", "Why?"), answer("base", "Why?")], "now")
    assert [one.pane for one in vote.candidates] == ["rt", "base"]
    assert vote.candidates[1].response == "I am base."
    assert (vote.choice, vote.rater, vote.blind) == (1, "me", True)


def test_votes_on_one_question_are_about_one_item_whatever_was_answered_before() -> None:
    one = counted(
        ballot(), [answer("a", "Hi.", "Yes?", "Why?"), answer("b", "Hi.", "No.", "Why?")], ""
    )
    two = counted(
        ballot("tie"), [answer("a", "Hi.", "So?", "Why?"), answer("b", "Hi.", "!", "Why?")], ""
    )
    other = counted(ballot(), [answer("a", "Why?"), answer("b", "Why?")], "")
    assert one.item_id == two.item_id != other.item_id


@pytest.mark.parametrize(
    ("answers", "choice", "message"),
    [
        ([answer("a", "Why?"), answer("b", "How?")], 0, "the same question"),
        ([answer("a", "Why?"), answer("a", "Why?")], 0, "different panes"),
        ([answer("a", "Why?"), answer("b", "Why?")], 2, "choice 2: there are 2 answers"),
    ],
)
def test_a_ballot_that_means_nothing_is_refused(
    answers: list[Answer], choice: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        counted(ballot(choice), answers, "")


@pytest.mark.parametrize(
    "fields",
    [{"choice": "neither"}, {"choice": -1}, {"answers": ["x"]}, {"rater": "../x"}, {"more": 1}],
)
def test_a_malformed_ballot_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ballot(**fields)
