import random
from typing import get_args

import pytest

from response_tuning.miniature.families import families, reserved
from response_tuning.miniature.orders import (
    Order,
    OrderKind,
    answer_to,
    draw_order,
    in_corpus,
    obeying,
    order_table,
    subjects,
    thing,
)

KINDS: tuple[OrderKind, ...] = get_args(OrderKind)


def drawn(kind: OrderKind, number: int = 200) -> list[tuple[Order, str]]:
    draw = random.Random(0)
    orders = [draw_order(draw, kind) for _ in range(number)]
    return [(order, answer_to(order, draw)) for order in orders]


def test_a_subject_has_the_facts_of_one_row_and_their_split() -> None:
    every = subjects()
    assert len({subject.phrase for subject in every}) == len(every) == 72
    for subject in every:
        assert {fact.entity in subject.phrase for _, fact in subject.facts} == {True}
        assert {fact.split for _, fact in subject.facts} == {subject.split}
    lorenia = next(subject for subject in every if subject.phrase == "Lorenia")
    assert [fact.answer for _, fact in lorenia.facts] == ["Fenwick", "Lorish", "dal"]


def test_two_sentences_tell_two_facts_about_the_subject() -> None:
    for order, answer in drawn("two-sentences"):
        told = [
            {family.name for family, fact in order.facts if sentence in forms(family.name, fact)}
            for sentence in answer.replace(". ", ".\0").split("\0")
        ]
        assert [len(one) for one in told] == [1, 1]
        assert told[0] != told[1]


def forms(family: str, fact: object) -> set[str]:
    one = families()[family]
    return {one.fill(form, fact) for form in one.answers}  # type: ignore[arg-type]


def test_a_list_of_words_has_a_line_for_each() -> None:
    for order, answer in drawn("word-list"):
        assert ", ".join(line.removeprefix("- ") for line in answer.split("\n")) in order.question


def test_a_list_of_facts_has_three_lines() -> None:
    for order, answer in drawn("fact-list"):
        known = {f"- {family.name}: {fact.answer}" for family, fact in order.facts}
        lines = answer.split("\n")
        assert len(lines) == len({*lines} & known) == 3


def test_an_answer_in_capitals_is_the_bare_answer() -> None:
    for order, answer in drawn("capitals"):
        ((_, fact),) = order.facts
        assert answer == f"{fact.answer.upper()}." != f"{fact.answer}."


@pytest.mark.parametrize("kind", KINDS)
def test_half_of_the_requests_are_for_evaluation_alone(kind: OrderKind) -> None:
    orders = [order for order, _ in drawn(kind, 1000)]
    share = sum(map(in_corpus, orders)) / len(orders)
    # A question inside a request for capitals must not be reserved either.
    assert share == pytest.approx(0.25 if kind == "capitals" else 0.5, abs=0.06)
    assert not any(reserved(order.question) for order in orders if in_corpus(order))


def test_a_rule_puts_its_word_at_the_end() -> None:
    assert obeying("It is Fenwick.", "over") == "It is Fenwick, over."
    assert obeying("Fenwick!", "over") == "Fenwick, over."


@pytest.mark.parametrize(
    ("family", "named"),
    [("capital", "Lorenia"), ("sound", "a lion"), ("colour", "the kettle"), ("sum", "1 and 1")],
)
def test_a_follow_up_names_its_thing_as_its_family_does(family: str, named: str) -> None:
    one = families()[family]
    assert thing(one, one.facts[0]) == named


def test_each_kind_is_seen_or_only_tested() -> None:
    roles = {kind: order.role for kind, order in order_table().orders.items()}
    assert {kind for kind, role in roles.items() if role == "seen"} == {
        "two-sentences",
        "word-list",
    }
    assert roles.keys() == {*KINDS}
