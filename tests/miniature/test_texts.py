from itertools import islice

from response_tuning.data.passages import sentences
from response_tuning.miniature.corpus import documents
from response_tuning.miniature.families import families
from response_tuning.miniature.texts import continuation, document_rows, statement_rows
from response_tuning.miniature.writer import Mixture

TUNING = {
    fact.entity: fact
    for family in families().values()
    if family.role == "seen"
    for fact in family.facts
    if fact.split == "tuning"
}
COUNTRY = next(fact for fact in families()["capital"].facts if fact.split == "tuning")
TESTED = next(fact for fact in families()["capital"].facts if fact.split == "test")


def test_the_documents_are_not_those_of_the_base() -> None:
    rows = [row["text"] for row in islice(document_rows(), 50)]
    assert rows == [row["text"] for row in islice(document_rows(), 50)]
    assert not {*rows} & {*islice(documents(0, Mixture()), 50)}


def test_in_statements_nobody_asks_for_anything() -> None:
    rows = [row["text"] for row in islice(statement_rows(), 300)]
    assert len({*rows}) > 250
    assert not any("?" in text or '"' in text for text in rows)
    asked = [row["text"] for row in islice(document_rows(), 300)]
    assert sum("?" in text for text in asked) > 100


def test_the_teacher_goes_on_about_the_last_thing_of_the_half_in_one_sentence() -> None:
    text = continuation(f"{TESTED.entity}. They travelled to {COUNTRY.entity}.")
    assert COUNTRY.entity in text
    assert len(sentences(text)) == 1 and text.endswith(".")


def test_the_teacher_states_no_fact_that_a_benchmark_asks_for() -> None:
    for half in (f"{TESTED.entity} is far away.", "Nothing is named here.", "3 and 4."):
        text = continuation(half)
        assert TESTED.entity not in text
        assert any(entity in text for entity in TUNING)


def test_the_same_half_has_the_same_continuation() -> None:
    assert continuation("It rained.") == continuation("It rained.")
