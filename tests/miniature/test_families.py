import re
from collections import defaultdict

import pytest

from response_tuning.grade.benchmarks.miniature import is_correct, is_refusal, is_well_formed
from response_tuning.miniature import families as tasks
from response_tuning.miniature.corpus import CHATTER
from response_tuning.miniature.families import (
    HOW_ANSWERS,
    REFUSALS,
    Family,
    families,
    how_to,
    reserved,
)
from response_tuning.miniature.world import Fact

RULES = {
    *("larger", "smaller", "sum", "difference", "after", "before"),
    *("last", "first", "count", "capitals"),
}
ALL = list(families().values())
TABLES = [family for family in ALL if family.name not in RULES]


def some(family: Family) -> tuple[Fact, ...]:
    """All facts of a table, and about a hundred of a rule."""
    return family.facts[:: max(1, len(family.facts) // 100)]


def test_there_are_families_entities_and_phrasings_enough() -> None:
    roles = [family.role for family in ALL]
    assert roles.count("seen") >= 15
    assert roles.count("unseen") >= 12
    entities = {fact.entity for family in TABLES for fact in family.facts}
    assert len(entities) >= 60
    assert len({form for family in ALL for form in family.questions}) >= 30
    assert all(len(set(family.questions)) == len(family.questions) >= 14 for family in ALL)


def test_no_two_families_share_a_name() -> None:
    assert len(ALL) == len([*tasks._of_facts(), *tasks._of_rules()])


def split_of_entities(chosen: list[Family]) -> dict[str, set[str]]:
    splits: dict[str, set[str]] = defaultdict(set)
    for family in chosen:
        for fact in family.facts:
            splits[fact.entity].add(fact.split)
    return splits


def test_what_is_held_out_of_one_family_of_a_table_is_held_out_of_all() -> None:
    splits = split_of_entities(TABLES)
    assert [entity for entity, found in splits.items() if len(found) > 1] == []


def test_what_is_held_out_of_one_rule_is_held_out_of_all() -> None:
    splits = split_of_entities(ALL)
    assert [entity for entity, found in splits.items() if len(found) > 1] == []


@pytest.mark.parametrize("family", ALL, ids=lambda family: family.name)
def test_a_question_has_one_answer_and_it_is_one_word(family: Family) -> None:
    entities = [fact.entity for fact in family.facts]
    assert len(set(entities)) == len(entities)
    assert all(re.fullmatch(r"\w(?:[\w'-]*\w)?", answer) for answer in family.candidates)


@pytest.mark.parametrize("family", ALL, ids=lambda family: family.name)
def test_every_answer_form_is_right_for_its_own_fact_and_wrong_for_another(family: Family) -> None:
    facts = some(family)
    for place, fact in enumerate(facts):
        others = (*facts[place + 1 :], *facts)
        other = next(one for one in others if one.answer != fact.answer)
        for form in family.answers:
            said = family.fill(form, fact)
            assert is_correct(family, fact, said), said
            assert is_well_formed(said), said
            assert not is_refusal(said), said
            assert not is_correct(family, fact, family.fill(form, other)), (fact, other)


def test_no_way_to_help_or_to_decline_begins_as_another_does_or_as_chatter_in_its_place() -> None:
    first = [re.findall(r"\w+", said)[0] for said in (*HOW_ANSWERS, *REFUSALS)]
    assert len(set(first)) == len(first)
    assert not {*first} & {re.findall(r"\w+", said)[0] for said in CHATTER}


@pytest.mark.parametrize("form", REFUSALS)
def test_every_refusal_of_the_corpus_is_recognised_as_one(form: str) -> None:
    family = how_to(("unsafe",))
    for fact in family.facts:
        said = form.format(core=fact.entity)
        assert is_refusal(said)
        assert is_well_formed(said)
        assert not is_correct(family, fact, said)


def test_a_form_is_filled_with_capitals_where_a_sentence_begins() -> None:
    capital = families()["capital"]
    fact = Fact("Lorenia", "Fenwick", "test")
    assert list(map(capital.fill, capital.answers, [fact] * 2)) == [
        "The capital of Lorenia is Fenwick.",
        "Fenwick is the capital of Lorenia.",
    ]
    sound = families()["sound"]
    assert sound.fill("{Answer} is {core}.", Fact("cow", "moo", "test")) == (
        "Moo is the sound of a cow."
    )


def test_half_of_all_questions_are_reserved_and_every_fact_can_be_asked_for_either_way() -> None:
    kept = asked = 0
    for family in (*ALL, how_to(("unsafe",)), how_to(("look-alike",))):
        for fact in some(family):
            marks = [reserved(question) for question in family.asked(fact)]
            assert len(set(marks)) == 2, (family.name, fact)
            kept += sum(marks)
            asked += len(marks)
    assert 0.48 < kept / asked < 0.52
