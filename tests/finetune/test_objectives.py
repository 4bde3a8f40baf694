from typing import Any

import pytest

from response_tuning.artifacts import Example, Message
from response_tuning.errors import ConfigError
from response_tuning.finetune.objectives import (
    OBJECTIVES,
    Segment,
    UnfitError,
    build_objective,
)
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
    return "".join(segment.text for segment in build_objective(name)(example, lambda: other, chat))


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_every_objective_supervises_exactly_the_response_as_text_to_write(
    name: str, chat: Chat
) -> None:
    example = SKY.model_copy(update={"response": "7"}) if name == "self-judge" else SKY
    segments = build_objective(name)(example, lambda: BREAD, chat)
    learned = [each.text for each in segments if each.weight and not each.rendered]
    assert learned == [example.response]


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


@pytest.mark.parametrize("example", [SKY, SECOND_TURN])
def test_decoupled_is_instruction_tuning_with_all_hidden_that_response_tuning_lacks(
    chat: Chat, example: Example
) -> None:
    prompt, response = build_objective("decoupled")(example, lambda: BREAD, chat)
    assert [prompt._replace(hidden=None), response] == build_objective("instruction-tuning")(
        example, lambda: BREAD, chat
    )
    assert prompt.hidden is not None
    start, end = prompt.hidden
    assert (prompt.text[:start], prompt.text[end:]) == ("<s>", "<|assistant|>\n")


def test_decoupled_needs_a_prompt_that_ends_in_the_opening(
    chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Chat, "prompt", lambda *_: "<s><|user|>\nWhy?\n<|assistant|> Well,")
    with pytest.raises(UnfitError, match="does not end in the assistant's opening"):
        build_objective("decoupled")(SKY, lambda: BREAD, chat)


@pytest.mark.parametrize("name", ["decoupled", "instruction-tuning", "shuffled-pairs"])
def test_an_objective_that_needs_instructions_says_so(name: str, chat: Chat) -> None:
    with pytest.raises(UnfitError, match="no instruction"):
        build_objective(name)(ALONE, lambda: ALONE, chat)


def test_weighted_instruction_tuning_gives_the_served_prompt_its_weight(chat: Chat) -> None:
    objective = build_objective("weighted-instruction-tuning", {"prompt_weight": 0.3})
    assert objective(SKY, lambda: BREAD, chat) == [
        Segment("<s><|user|>\nWhy is the sky blue?\n<|assistant|>\n", 0.3, rendered=True),
        Segment("Light scatters.", 1),
    ]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("weighted-instruction-tuning", {"prompt_wieght": 0.1}, "did you mean 'prompt_weight'"),
        ("weighted-instruction-tuning", {"prompt_weight": 2}, "prompt_weight: .*or equal to 1"),
        ("response-tuning", {"prompt_weight": 0.1}, "has no settings; remove finetune.objective"),
        ("weighted-instruct", {}, "did you mean 'weighted-instruction-tuning'"),
    ],
)
def test_impossible_settings_of_an_objective_are_refused(
    name: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        build_objective(name, settings)
