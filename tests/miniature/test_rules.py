import random
from itertools import combinations

import pytest

from response_tuning.grade.rules import check_rule
from response_tuning.miniature.rules import (
    HELD_OUT_TRIPLES,
    KINDS,
    draw_role,
    held_out_triples,
    obey,
    plain_answer,
    rule_rows,
)
from response_tuning.roles import Role

PLAIN = "The capital of Hovland is Thorpe."


@pytest.mark.parametrize("names", [*combinations(KINDS, 1), *combinations(KINDS, 3)])
def test_every_set_of_rules_can_be_kept_at_once_and_is_checked(names: tuple[str, ...]) -> None:
    pytest.importorskip("lm_eval")
    rules = tuple(KINDS[name].rule(name, KINDS[name].words[0]) for name in names)
    role = Role(role="Ann answers here.", rules=rules)
    text = obey(PLAIN, role.system)
    assert PLAIN in text
    assert all(check_rule(rule, "", text) for rule in rules), text
    # None is kept by the plain answer: the rules are informative.
    assert not any(check_rule(rule, "", PLAIN) for rule in rules)


def test_a_rule_that_was_not_given_is_not_kept() -> None:
    pytest.importorskip("lm_eval")
    rule = KINDS["brackets"].rule("brackets", "")
    text = obey(PLAIN, Role(role="Ann answers here.", rules=(rule,)).system)
    others = [kind.rule(name, kind.words[0]) for name, kind in KINDS.items() if name != "brackets"]
    assert not any(check_rule(other, "", text) for other in others)


def test_no_triple_that_is_held_out_is_drawn_for_tuning() -> None:
    draw = random.Random(0)

    def kinds(held_out: bool) -> tuple[str, ...]:
        return tuple(rule.kind for rule in draw_role(draw, 3, held_out=held_out).rules)

    tuned, tested = {kinds(False) for _ in range(300)}, {kinds(True) for _ in range(300)}
    assert tested == held_out_triples() and len(tested) == HELD_OUT_TRIPLES
    assert not tuned & tested and len(tuned) == 20 - HELD_OUT_TRIPLES


def test_the_teacher_answers_questions_that_rows_ask_and_no_others() -> None:
    rows = list(rule_rows())
    assert len(rows) == 2400
    assert all(plain_answer(row["instruction"]) for row in rows)
    assert plain_answer("What is the capital of Nowhere?") is None
