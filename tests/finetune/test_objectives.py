import pytest

from response_tuning.artifacts import Example, Message
from response_tuning.finetune.objectives import OBJECTIVES, UnfitError
from response_tuning.templates import Chat

SKY = Example(row=0, instruction="Why is the sky blue?", response="Light scatters.")
BREAD = Example(row=1, instruction="How is bread made?", response="Knead, rest, bake.")
ALONE = Example(row=2, response="An answer without a question.")
SECOND_TURN = Example(
    row=3,
    turn=1,
    instruction="And at dusk?",
    response="It is red.",
    earlier=(
        Message(role="user", content="Why is the sky blue?"),
        Message(role="assistant", content="Light scatters."),
    ),
)


def text(name: str, chat: Chat, example: Example = SKY, other: Example = BREAD) -> str:
    return "".join(segment.text for segment in OBJECTIVES.get(name)(example, lambda: other, chat))


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_every_objective_supervises_exactly_the_response(name: str, chat: Chat) -> None:
    segments = OBJECTIVES.get(name)(SKY, lambda: BREAD, chat)
    assert [segment.text for segment in segments if segment.supervised] == [SKY.response]


def test_response_tuning_never_shows_the_instruction(chat: Chat) -> None:
    assert text("response-tuning", chat) == "<s><|assistant|>\nLight scatters."


def test_response_tuning_shows_no_earlier_turn_either(chat: Chat) -> None:
    assert text("response-tuning", chat, SECOND_TURN) == "<s><|assistant|>\nIt is red."


def test_instruction_tuning_differs_in_what_stands_before_the_response(chat: Chat) -> None:
    assert text("instruction-tuning", chat) == (
        "<s><|user|>\nWhy is the sky blue?\n<|assistant|>\nLight scatters."
    )


def test_instruction_tuning_shows_earlier_turns_as_context(chat: Chat) -> None:
    assert text("instruction-tuning", chat, SECOND_TURN) == (
        "<s><|user|>\nWhy is the sky blue?\n<|assistant|>\nLight scatters.</s>\n"
        "<|user|>\nAnd at dusk?\n<|assistant|>\nIt is red."
    )


def test_the_empty_user_turn_keeps_its_tag(chat: Chat) -> None:
    assert (
        text("response-tuning-empty-user", chat) == "<s><|user|>\n\n<|assistant|>\nLight scatters."
    )


def test_shuffled_pairs_answer_somebody_elses_question(chat: Chat) -> None:
    assert text("shuffled-pairs", chat) == (
        "<s><|user|>\nHow is bread made?\n<|assistant|>\nLight scatters."
    )


@pytest.mark.parametrize("name", ["instruction-tuning", "shuffled-pairs"])
def test_an_objective_that_needs_instructions_says_so(name: str, chat: Chat) -> None:
    with pytest.raises(UnfitError, match="no instruction"):
        OBJECTIVES.get(name)(ALONE, lambda: ALONE, chat)
