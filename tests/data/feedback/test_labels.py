import pytest

from response_tuning.data.feedback import labels
from response_tuning.data.feedback.labels import Answer, answers, revised
from response_tuning.data.feedback.log import Dialogue, Utterance

THANKS, COMPLAINT, PLAIN = (True, False), (False, True), (False, False)


def scripted(*labels_of_turns: tuple[bool, bool], topics: tuple[int, ...] = ()) -> Dialogue:
    """User turns with these labels; as published, each answer repeats the label before it."""
    said: list[Utterance] = []
    for number, (satisfied, dissatisfied) in enumerate(labels_of_turns):
        opens = number in topics
        said.append(Utterance("user", f"user {number}", satisfied, dissatisfied, opens))
        said.append(Utterance("assistant", f"answer {number}", satisfied, dissatisfied))
    return Dialogue(7, "log.jsonl:1", tuple(said))


def labels_of(dialogue: Dialogue) -> list[str]:
    return [answer.label for answer in answers(dialogue)]


def test_the_label_of_an_answer_is_on_the_next_turn_of_the_user() -> None:
    log = scripted(PLAIN, COMPLAINT, THANKS, PLAIN, (True, True))
    assert labels_of(log) == ["dissatisfied", "satisfied", "neither", "both", "last"]


def test_reading_the_label_from_the_answers_own_row_is_off_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = scripted(PLAIN, COMPLAINT, THANKS, PLAIN)
    right = labels_of(log)
    # The mutation: what follows an answer is taken from its own row.
    rows = iter([one for one in log.utterances if one.role == "assistant"])
    read = labels._label
    monkeypatch.setattr(labels, "_label", lambda _: read(next(rows)))
    assert labels_of(log) == ["neither", "dissatisfied", "satisfied", "neither"]
    assert right == ["dissatisfied", "satisfied", "neither", "last"]


def test_a_pair_is_an_answer_that_displeased_and_the_next_one_that_pleased() -> None:
    (pair,) = revised(answers(scripted(PLAIN, COMPLAINT, THANKS, PLAIN)))
    worse, better = pair
    assert (worse.response, better.response) == ("answer 0", "answer 1")
    assert worse.instruction == "user 0"
    assert worse.feedback == "user 1"


@pytest.mark.parametrize("turn", [1, 2])
def test_a_turn_that_opens_a_topic_says_nothing_about_the_answer_before(turn: int) -> None:
    log = scripted(PLAIN, COMPLAINT, THANKS, PLAIN, topics=(turn,))
    assert labels_of(log)[turn - 1] == "new topic"
    assert [*revised(answers(log))] == []


def test_no_pair_is_made_of_a_second_complaint_or_an_unlabelled_turn() -> None:
    assert [*revised(answers(scripted(PLAIN, COMPLAINT, COMPLAINT, PLAIN)))] == []
    assert [*revised(answers(scripted(PLAIN, COMPLAINT, PLAIN)))] == []
    assert [*revised(answers(scripted(PLAIN, THANKS, COMPLAINT)))] == []


def test_the_context_of_an_answer_is_what_was_said_before_its_question() -> None:
    second = answers(scripted(PLAIN, PLAIN))[1]
    assert isinstance(second, Answer)
    assert [(one.role, one.content) for one in second.earlier] == [
        ("user", "user 0"),
        ("assistant", "answer 0"),
    ]
    assert (second.instruction, second.response, second.dialogue) == ("user 1", "answer 1", 7)
    assert [one.content for one in second.prompt] == ["user 0", "answer 0", "user 1"]
