import pytest

from response_tuning.miniature.computed_facts import (
    COMPUTED_FACTS,
    NUMBER_WORDS,
    opposites,
    word_lists,
)
from response_tuning.miniature.families import families
from response_tuning.miniature.world import tables


@pytest.mark.parametrize(
    ("name", "entity", "answer"),
    [
        ("opposites", "cold", "hot"),
        ("categories", "plum", "fruit"),
        ("larger", "3 and 8", "8"),
        ("smaller", "8 and 3", "3"),
        ("sum", "12 and 5", "17"),
        ("difference", "12 and 5", "7"),
        ("after", "98", "99"),
        ("before", "2", "1"),
        ("in_words", "21", "twenty-one"),
        ("in_digits", "twenty-one", "21"),
        ("capitals", "lamp", "LAMP"),
        ("harmless_acts", "bake bread", "funnel"),
    ],
)
def test_a_computed_fact_is_right(name: str, entity: str, answer: str) -> None:
    answers = {fact.entity: fact.answer for fact in COMPUTED_FACTS[name]()}
    assert answers[entity] == answer


def test_the_facts_about_a_list_are_its_ends_and_its_length() -> None:
    words = word_lists(4000)[0]
    firsts = [COMPUTED_FACTS[name]()[0] for name in ("first", "last", "count")]
    assert {fact.entity for fact in firsts} == {", ".join(words)}
    assert [fact.answer for fact in firsts] == [words[0], words[-1], NUMBER_WORDS[len(words) - 1]]
    assert len({fact.split for fact in firsts}) == 1


def test_a_word_and_its_opposite_are_held_out_together() -> None:
    split = {fact.entity: fact.split for fact in opposites()}
    assert all(split[fact.answer] == fact.split for fact in opposites())


def test_lists_are_distinct_and_hold_two_to_five_words() -> None:
    lists = word_lists(500)
    assert len(set(lists)) == 500
    assert {len(words) for words in lists} == {2, 3, 4, 5}
    assert all(len(set(words)) == len(words) for words in lists)


def test_the_words_of_lists_are_neither_entity_nor_answer_of_a_table() -> None:
    ruled = {"last", "first", "count", "capitals"}
    elsewhere = {
        word
        for family in families().values()
        if family.name not in ruled
        for fact in family.facts
        for word in (fact.entity, fact.answer)
    }
    assert not elsewhere & set(tables()["words"].split())


def test_numbers_have_the_names_that_english_gives_them() -> None:
    names = {1: "one", 13: "thirteen", 20: "twenty", 21: "twenty-one", 59: "fifty-nine"}
    assert {n: NUMBER_WORDS[n - 1] for n in names} == names
    assert len(set(NUMBER_WORDS)) == 59
