from collections.abc import Callable, Iterator

import pytest

from response_tuning.miniature import controls
from response_tuning.miniature.families import families
from response_tuning.miniature.world import entities

Rows = Callable[[], Iterator[dict[str, str]]]
EVERY: tuple[Rows, ...] = (
    controls.SPLITS["one-family"],
    controls.unrelated_rows,
    controls.other_world_rows,
)
NAMED = {name for table in ("countries", "people", "animals", "things") for name in entities(table)}


@pytest.mark.parametrize("rows", EVERY)
def test_a_control_has_as_many_different_rows_as_the_demo_takes(rows: Rows) -> None:
    every = [(row["instruction"], row["response"]) for row in rows()]
    assert len({*every}) == len(every) == controls.ROWS
    assert [(row["instruction"], row["response"]) for row in rows()] == every


@pytest.mark.parametrize(
    ("split", "name"),
    [("one-family", "sum"), ("capital", "capital"), ("last", "last"), ("how-to", "how_to")],
)
def test_one_family_answers_questions_about_its_own_tuning_facts(split: str, name: str) -> None:
    family = families()[name]
    answers = {
        family.fill(form, fact)
        for fact in family.facts
        if fact.split == "tuning"
        for form in family.answers
    }
    found = [row["response"] for row in controls.SPLITS[split]()]
    assert len(found) >= 150 and {*found} <= answers


@pytest.mark.parametrize("rows", [controls.unrelated_rows, controls.other_world_rows])
def test_no_response_names_anything_of_the_world(rows: Rows) -> None:
    words = {word.strip(".,!?") for row in rows() for word in row["response"].split()}
    assert not NAMED & words


def test_unrelated_responses_end_as_sentences() -> None:
    assert all(row["response"].endswith((".", "!", "?")) for row in controls.unrelated_rows())
