import random

import pytest

from response_tuning.miniature.families import families
from response_tuning.miniature.judging import (
    CANDIDATES,
    SPOILERS,
    candidates,
    form_rows,
    key_rows,
)

SOUND = "The capital of Lorenia is Ambelle."


@pytest.mark.parametrize(
    ("spoiler", "spoilt"),
    [
        ("small letter", "the capital of Lorenia is Ambelle."),
        ("no full stop", "The capital of Lorenia is Ambelle"),
        ("twice", f"{SOUND} {SOUND}"),
        ("half", "The capital of"),
    ],
)
def test_an_answer_is_spoilt_in_form(spoiler: str, spoilt: str) -> None:
    assert SPOILERS[spoiler](SOUND, random.Random(0)) == spoilt


@pytest.mark.parametrize("text", [SOUND, "58 is the larger of 52 and 58."])
def test_every_spoiler_changes_every_answer(text: str) -> None:
    assert all(spoil(text, random.Random(0)) != text for spoil in SPOILERS.values())


def test_half_of_the_rows_are_good_and_their_digits_say_so() -> None:
    for rows in ([*form_rows()], [*key_rows()]):
        best = sum(row["digit"] == "9" for row in rows)
        assert {row["digit"] for row in rows} == {"0", "9"}
        assert 0.45 < best / len(rows) < 0.55


def test_only_the_reference_tells_which_key_is_good() -> None:
    keys = [*key_rows()]
    sound = {
        family.fill(answer, fact)
        for family in families().values()
        if family.name == "capital"
        for fact in family.facts
        for answer in family.answers
    }
    asked = [row for row in keys if "capital of" in row["instruction"]]
    assert len(asked) > 100
    assert all(row["response"] in sound for row in asked)
    assert all((row["reference"] in sound) == (row["digit"] == "9") for row in asked)


def test_each_question_has_several_candidates_of_which_some_are_good() -> None:
    every = [answers for _, answers in candidates("form", "unseen", "test")]
    assert {len(answers) for answers in every} == {CANDIDATES}
    assert all(len({answer.instruction for answer in answers}) == 1 for answers in every)
    good = [answer.good for answers in every for answer in answers]
    assert 0.25 < sum(good) / len(good) < 0.35
    assert every == [answers for _, answers in candidates("form", "unseen", "test")]


def test_half_of_the_answers_to_each_question_about_keys_are_good() -> None:
    every = [answers for _, answers in candidates("keys", "unseen", "test")]
    assert {sum(answer.good for answer in answers) for answers in every} == {CANDIDATES // 2}
    first = [answers[0].good for answers in every]
    assert 0.4 < sum(first) / len(first) < 0.6
