from collections import Counter

import pytest

from response_tuning.miniature.conversations import ITEMS_PER_KIND, conversations
from response_tuning.miniature.examples import tuning_rows
from response_tuning.miniature.families import reserved
from response_tuning.miniature.world import Split

SPLITS: tuple[Split, ...] = ("test", "validation")


@pytest.mark.parametrize("split", SPLITS)
def test_every_kind_has_its_number_of_conversations_and_no_prompt_comes_twice(split: Split) -> None:
    every = conversations(split)
    assert {*Counter(one.kind for one in every).values()} == {ITEMS_PER_KIND[split]}
    assert len({one.prompt for one in every}) == len({one.item_id for one in every}) == len(every)
    assert conversations(split) == every


@pytest.mark.parametrize("split", SPLITS)
def test_conversations_are_about_facts_of_their_split_alone(split: Split) -> None:
    facts = [fact for one in conversations(split) for _, fact in one.facts]
    assert {fact.split for fact in facts} == {split}
    assert len(facts) > 150


def test_what_the_last_turn_asks_and_what_a_rule_says_is_reserved() -> None:
    for one in conversations("test"):
        assert reserved(one.prompt[0].content)
        assert reserved(one.prompt[-1].content)


def test_the_turns_of_a_conversation_are_those_of_its_kind() -> None:
    turns = {
        one.kind: tuple(message.role for message in one.prompt) for one in conversations("test")
    }
    asked = ("user",)
    assert turns == {
        "two-sentences": asked,
        "word-list": asked,
        "fact-list": asked,
        "capitals": asked,
        "rule": ("system", "user"),
        "follow-up": ("user", "assistant", "user"),
    }


def test_no_request_of_the_benchmark_is_tuned_on() -> None:
    tuned = {row["instruction"] for row in tuning_rows()}
    asked = {
        message.content
        for split in SPLITS
        for one in conversations(split)
        for message in one.prompt
    }
    assert not tuned & asked
