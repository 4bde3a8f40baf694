import pytest

from response_tuning.artifacts import Example, Message
from response_tuning.data.refinement.prompt import ask_for_rewrite, prompt_digest
from response_tuning.data.refinement.reply import MARKER, rewrite
from response_tuning.rewriting import Material

EXAMPLE = Example(
    row=3,
    turn=1,
    response="Use {{ leaves }} & <b>water</b>.",
    instruction="How is it made?",
    earlier=(
        Message(role="user", content="Is tea good?"),
        Message(role="assistant", content="It is."),
    ),
)


def prompt_for(example: Example, material: Material = "response") -> str:
    (message,) = ask_for_rewrite(example, material).prompt
    assert message.role == "user"
    return message.content


def test_the_refiner_sees_the_conversation_the_request_and_the_response() -> None:
    text = prompt_for(EXAMPLE)
    assert ask_for_rewrite(EXAMPLE, "response").item_id == "3.1"
    assert "<conversation>\nuser: Is tea good?\nassistant: It is.\n</conversation>" in text
    assert "<request>\nHow is it made?\n</request>" in text
    assert "<response>\nUse {{ leaves }} & <b>water</b>.\n</response>" in text
    assert MARKER in text
    for attribute in ("Clarity", "Structure", "Tone"):
        assert attribute in text


def test_without_an_instruction_there_is_no_word_of_one() -> None:
    text = prompt_for(Example(row=0, response="Tea is good."))
    assert "<request>" not in text
    assert "<conversation>" not in text
    assert "do not guess" in text


@pytest.mark.parametrize("material", ["response", "passage"])
def test_a_refiner_that_repeats_the_prompt_has_rewritten_nothing(material: Material) -> None:
    assert rewrite(prompt_for(EXAMPLE, material), EXAMPLE.response) is None


def test_the_prompt_for_a_passage_requests_the_voice_of_an_assistant() -> None:
    text = prompt_for(Example(row=0, response="Tea is good."), "passage")
    assert "<passage>\nTea is good.\n</passage>" in text
    assert "assistant" in text
    assert "<request>" not in text


def test_the_wording_has_an_identity() -> None:
    assert prompt_digest("response") == prompt_digest("response") != prompt_digest("passage")
