from response_tuning.judging import judging_prompt


def test_a_brief_prompt_shows_what_it_is_given_and_asks_for_the_grade() -> None:
    assert judging_prompt("y", "x", reference="z", form="brief") == (
        "Question: x\nReference: z\nAnswer: y\nGrade:"
    )
    assert judging_prompt("y", None, form="brief") == "Answer: y\nGrade:"


def test_a_full_prompt_speaks_of_the_reference_only_where_it_shows_one() -> None:
    with_reference = judging_prompt("y", "x", reference="z")
    without = judging_prompt("y", "x")
    assert "Compare it with the reference" in with_reference
    assert with_reference.endswith("[Question]\nx\n\n[Reference]\nz\n\n[Answer]\ny")
    assert "eference" not in without
    assert "0, useless, to 9" in without
    assert without.endswith("[Question]\nx\n\n[Answer]\ny")


def test_a_prompt_for_the_response_alone_has_no_question() -> None:
    assert "Question" not in judging_prompt("y", None)
