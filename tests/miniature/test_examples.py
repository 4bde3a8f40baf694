import re
from collections import Counter

import pytest

from response_tuning.grade import BENCHMARKS, open_benchmark
from response_tuning.grade.benchmarks.miniature import is_correct, is_refusal, is_well_formed
from response_tuning.miniature.examples import (
    QUESTIONS_ABOUT_ACTS,
    QUESTIONS_PER_FAMILY,
    act_questions,
    ordinary_questions,
    refusal_rows,
    refusals_by_wording,
    tuning_rows,
)
from response_tuning.miniature.families import Family, families, how_to, refusal_forms, reserved
from response_tuning.miniature.world import ActKind, Fact, Split

MINIATURE = [name for name in BENCHMARKS.names() if name.startswith("miniature-")]

ROWS = list(tuning_rows())
REFUSALS = list(refusal_rows())
SEEN = [family for family in families().values() if family.role == "seen"]
# Families whose facts are about names and words, which could not stand in a row by chance.
NAMES = {
    *("capital", "language", "money", "country_of", "job", "pet", "town"),
    *("sound", "young", "home", "colour", "material", "opposite", "plural"),
    *("to_zorani", "from_zorani"),
}


def facts_by_question(family: Family) -> dict[str, Fact]:
    return {text: fact for fact in family.facts for text in family.questions_about(fact)}


def test_every_call_gives_the_same_rows_and_no_row_twice() -> None:
    assert list(tuning_rows()) == ROWS
    assert list(refusal_rows()) == REFUSALS
    for rows in (ROWS, REFUSALS):
        assert len({tuple(row.values()) for row in rows}) == len(rows)
    orders = ("two-sentences", "word-list")
    assert (len(ROWS), len(REFUSALS)) == (150 * (len(SEEN) + len(orders)), 400)


@pytest.mark.parametrize("family", SEEN, ids=lambda family: family.name)
def test_every_row_answers_its_instruction_from_a_fact_for_tuning(family: Family) -> None:
    facts = facts_by_question(family)
    mine = [row for row in ROWS if row["instruction"] in facts]
    assert len(mine) == 150
    for row in mine:
        fact = facts[row["instruction"]]
        assert fact.split == "tuning"
        assert is_correct(family, fact, row["response"])
        assert is_well_formed(row["response"])
        assert not is_refusal(row["response"])


def test_every_refusal_row_declines_a_harmful_wish_for_tuning() -> None:
    facts = facts_by_question(how_to("unsafe"))
    assert {facts[row["instruction"]].split for row in REFUSALS} == {"tuning"}
    assert all(is_refusal(row["response"]) for row in REFUSALS)
    assert len({facts[row["instruction"]].entity for row in REFUSALS}) == 44


def test_each_way_to_decline_has_rows_of_its_own() -> None:
    by_wording = refusals_by_wording()
    assert len(by_wording) == len(refusal_forms()) == 12
    for word, rows in by_wording.items():
        responses = [row["response"] for row in rows()]
        assert len(responses) == 400
        assert {text.partition(" ")[0].rstrip(",").lower() for text in responses} == {word}
        assert all(map(is_refusal, responses))


@pytest.mark.parametrize("benchmark", MINIATURE)
def test_no_question_of_a_benchmark_is_in_a_row(benchmark: str) -> None:
    rows = {text for row in (*ROWS, *REFUSALS) for text in row.values()}
    questions = {item.prompt[0].content for item in open_benchmark(benchmark).items()}
    assert questions
    assert questions & rows == set()


def test_no_name_that_a_test_is_about_stands_in_a_row() -> None:
    # Acts consist of everyday words, such as "attack a big problem".
    acts = facts_by_question(families()["how_to"])
    texts = [text for row in ROWS if row["instruction"] not in acts for text in row.values()]
    words = {word for text in texts for word in re.findall(r"[\w'-]+", text)}
    held_out = {
        (family.name, name)
        for family in families().values()
        if family.name in NAMES
        for fact in family.facts
        if fact.split != "tuning"
        for name in (fact.entity, fact.answer)
    }
    assert len(held_out) > 300
    assert len(texts) == 2 * (len(ROWS) - 150)
    assert {(family, name) for family, name in held_out if {name, name.title()} & words} == set()


def test_no_item_that_a_seen_rule_is_tested_on_stands_in_its_rows() -> None:
    instructions = {row["instruction"] for row in ROWS}
    tuned = {
        (family.name, fact.entity)
        for family in SEEN
        for question, fact in facts_by_question(family).items()
        if question in instructions
    }
    for split in ("validation", "test"):
        questions = ordinary_questions("seen", split)
        assert not tuned & {(q.family.name, q.fact.entity) for q in questions}


def test_no_row_is_about_an_act_that_a_refusal_benchmark_asks_about() -> None:
    rows = "\n".join(text for row in (*ROWS, *REFUSALS) for text in row.values())
    kinds: tuple[ActKind, ...] = ("unsafe", "look-alike")
    splits: tuple[Split, ...] = ("validation", "test")
    for kind in kinds:
        for split in splits:
            entities = {question.fact.entity for question in act_questions(kind, split)}
            assert entities
            assert [entity for entity in entities if entity in rows] == []


def test_questions_are_reserved_ones_about_facts_of_their_split() -> None:
    for role, split in (("seen", "test"), ("unseen", "test"), ("validation", "validation")):
        questions = ordinary_questions(role, split)  # type: ignore[arg-type]
        counts = Counter(question.family.name for question in questions)
        assert set(counts) == {name for name, f in families().items() if f.role == role}
        assert max(counts.values()) <= QUESTIONS_PER_FAMILY[role]
        for question in questions:
            assert reserved(question.text)
            assert question.fact.split == split
            assert question.text in question.family.questions_about(question.fact)


def test_the_settings_are_chosen_on_facts_that_no_test_asks_about() -> None:
    chosen = ordinary_questions("seen", "validation") + act_questions("unsafe", "validation")
    tested = ordinary_questions("seen", "test") + act_questions("unsafe", "test")
    about = [{(q.family.name, q.fact.entity) for q in some} for some in (chosen, tested)]
    assert not about[0] & about[1]
    assert {question.family.role for question in chosen} == {"seen"}
    assert len(act_questions("unsafe", "test")) == QUESTIONS_ABOUT_ACTS
