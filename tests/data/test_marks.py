import pytest

from response_tuning.data.marks import LEARNED, NOT_LEARNED, is_yes, unlearned


@pytest.mark.parametrize("name", sorted(LEARNED))
@pytest.mark.parametrize("no", [0, 0.0, False, "0", "false", "False", "no", "off"])
def test_no_is_heard_in_every_spelling(name: str, no: object) -> None:
    assert unlearned({name: no}) == f"marked as not to be learned ({name})"


@pytest.mark.parametrize("name", sorted(LEARNED))
@pytest.mark.parametrize("yes", [1, 1.0, True, "1", "true", None])
def test_yes_and_null_change_nothing(name: str, yes: object) -> None:
    assert unlearned({name: yes}) == ""


@pytest.mark.parametrize("name", sorted(NOT_LEARNED))
def test_a_mask_says_the_reverse(name: str) -> None:
    assert unlearned({name: True}) == f"marked as not to be learned ({name})"
    assert unlearned({name: False}) == ""


@pytest.mark.parametrize("value", [0.5, 2, -1, "some", [], float("nan")])
def test_a_mark_that_cannot_be_kept_to_is_named(value: object) -> None:
    assert unlearned({"weight": value}) == "weight is neither 0 nor 1"


@pytest.mark.parametrize("name", ["train_detail", "training_detail"])
def test_a_message_of_which_a_part_is_not_to_be_learned_is_not_learned(name: str) -> None:
    spans = [{"begin_offset": 0, "end_offset": 4, "train": True}]
    assert unlearned({name: spans}) == ""
    spans += [{"begin_offset": 5, "end_offset": 9, "train": False}]
    assert unlearned({name: spans}) == f"marked as not to be learned in part ({name})"


def test_only_the_marks_that_are_asked_for_are_heard() -> None:
    assert unlearned({"loss": 0, "train": 0}, {"train"}) == "marked as not to be learned (train)"
    assert unlearned({"loss": 0}, set()) == ""


def test_a_mark_is_read() -> None:
    assert [is_yes(value) for value in (True, 0, " No ", "1.0")] == [True, False, False, True]
    assert is_yes(0.5) is is_yes("maybe") is is_yes(None) is None


@pytest.mark.parametrize(
    "message",
    [
        {"mask": True},
        {"Ignore": True},
        {"skip": 1},
        {"train_on_turn": False},
        {"train-on": False},
        {"Weight": 0},
        {"metadata": {"weight": 0}},
    ],
)
def test_marks_of_messages_are_heard_under_other_names_and_in_any_case(
    message: dict[str, object],
) -> None:
    assert unlearned(message).startswith("marked as not to be learned (")
