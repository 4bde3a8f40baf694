import re
from collections import defaultdict
from typing import Any

import pytest
from pydantic import ValidationError

from response_tuning.grade.benchmarks.miniature import is_correct, is_refusal, is_well_formed
from response_tuning.miniature.computed_facts import COMPUTED_FACTS
from response_tuning.miniature.corpus import CHATTER
from response_tuning.miniature.families import (
    ComputedFacts,
    Family,
    FamilyTable,
    families,
    family_table,
    how_to,
    refusal_forms,
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


def test_the_world_has_enough_families_entities_and_phrasings() -> None:
    roles = [family.role for family in ALL]
    assert roles.count("seen") >= 15
    assert roles.count("unseen") >= 12
    entities = {fact.entity for family in TABLES for fact in family.facts}
    assert len(entities) >= 60
    assert len({form for family in ALL for form in family.questions}) >= 30
    assert all(len(set(family.questions)) == len(family.questions) >= 14 for family in ALL)


def test_a_family_has_the_shared_phrasings_before_its_own() -> None:
    language = families()["language"]
    assert language.questions[0] == "What is {core}?"
    assert language.questions[-1] == "Which language do people speak in {entity}?"
    assert language.answers == (
        "{Core} is {answer}.",
        "{Answer} is {core}.",
        "People in {entity} speak {answer}.",
    )
    assert how_to("unsafe").questions == families()["how_to"].questions
    assert how_to("unsafe").questions[0] == "How do I {core}?"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"core": "the capital of {entitty}"}, "unknown placeholder '{entitty}' in"),
        ({"answers": ["{Name} is {answer}."]}, "unknown placeholder '{Name}' in"),
        ({"role": "sen"}, "Input should be 'seen', 'unseen' or 'validation'"),
        ({"question": ["Which?"]}, "Extra inputs are not permitted"),
        ({"facts": {"table": "countries"}}, "Field required"),
        ({"phrasings": "noun"}, "Input should be 'name' or 'act'"),
    ],
)
def test_a_fault_in_the_table_is_found_when_it_is_loaded(
    changes: dict[str, Any], message: str
) -> None:
    content = family_table().model_dump()
    content["families"]["capital"] |= changes
    with pytest.raises(ValidationError, match=message):
        FamilyTable.model_validate(content)


def test_every_computed_fact_is_used_by_a_family() -> None:
    used = {
        row.facts.computed
        for row in family_table().families.values()
        if isinstance(row.facts, ComputedFacts)
    }
    assert used == COMPUTED_FACTS.keys()


def split_of_entities(chosen: list[Family]) -> dict[str, set[str]]:
    splits: dict[str, set[str]] = defaultdict(set)
    for family in chosen:
        for fact in family.facts:
            splits[fact.entity].add(fact.split)
    return splits


def test_what_is_held_out_of_one_family_of_a_table_is_held_out_of_all() -> None:
    splits = split_of_entities(TABLES)
    assert [entity for entity, used in splits.items() if len(used) > 1] == []


def test_what_is_held_out_of_one_rule_is_held_out_of_all() -> None:
    splits = split_of_entities(ALL)
    assert [entity for entity, used in splits.items() if len(used) > 1] == []


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
            answer = family.fill(form, fact)
            assert is_correct(family, fact, answer), answer
            assert is_well_formed(answer), answer
            assert not is_refusal(answer), answer
            assert not is_correct(family, fact, family.fill(form, other)), (fact, other)


def test_no_way_to_help_or_to_decline_begins_as_another_does_or_as_chatter_in_its_place() -> None:
    forms = (*how_to("unsafe").answers, *refusal_forms())
    first = [re.findall(r"\w+", form)[0] for form in forms]
    assert len(first) == 20
    assert len(set(first)) == len(first)
    assert not {*first} & {re.findall(r"\w+", text)[0] for text in CHATTER}


@pytest.mark.parametrize("form", refusal_forms())
def test_every_refusal_of_the_corpus_is_recognised_as_one(form: str) -> None:
    family = how_to("unsafe")
    for fact in family.facts:
        refusal = form.format(core=fact.entity)
        assert is_refusal(refusal)
        assert is_well_formed(refusal)
        assert not is_correct(family, fact, refusal)


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
    kept = total = 0
    for family in (*ALL, how_to("unsafe"), how_to("look-alike")):
        for fact in some(family):
            marks = [reserved(question) for question in family.questions_about(fact)]
            assert len(set(marks)) == 2, (family.name, fact)
            kept += sum(marks)
            total += len(marks)
    assert 0.48 < kept / total < 0.52
