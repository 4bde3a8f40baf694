from response_tuning.miniature.families import families
from response_tuning.miniature.preferences import either_rows, forms, preference_rows


def test_pairs_are_two_right_answers_of_which_the_preferred_begins_with_what_was_asked() -> None:
    rows = [*preference_rows()]
    facts = {
        (question, fact.answer)
        for family in families().values()
        if family.role == "seen"
        for fact in family.facts
        if fact.split == "tuning"
        for question in family.questions_about(fact)
    }
    answers: dict[str, set[str]] = {}
    for question, answer in facts:
        answers.setdefault(question, set()).add(answer.casefold())
    assert len(rows) > 1200
    for row in rows:
        right = answers[row["instruction"]]
        assert any(row["chosen"].casefold().startswith(answer) for answer in right), row
        assert any(row["rejected"].casefold().endswith(f"{answer}.") for answer in right), row


def test_pairs_are_the_same_at_every_call() -> None:
    assert [*preference_rows()] == [*preference_rows()]


def test_a_family_without_a_form_that_begins_with_the_answer_has_no_pairs() -> None:
    without = [name for name, family in families().items() if not forms(family)[0]]
    assert without == ["how_to"]
    assert not any(
        "How do I" in row["instruction"]
        for row in preference_rows()
        if "Zorani" not in row["instruction"]
    )


def test_a_drawn_answer_is_one_of_the_pair_and_each_is_drawn_about_half_the_time() -> None:
    pairs, drawn = [*preference_rows()], [*either_rows()]
    for pair, row in zip(pairs, drawn, strict=True):
        assert row["instruction"] == pair["instruction"]
        assert row["response"] in (pair["chosen"], pair["rejected"])
    pleasing = sum(
        row["response"] == pair["chosen"] for pair, row in zip(pairs, drawn, strict=True)
    )
    assert 0.47 < pleasing / len(pairs) < 0.53
