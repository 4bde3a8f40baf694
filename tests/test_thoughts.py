import pytest

from response_tuning.artifacts import Completion, Message, Sampling
from response_tuning.thoughts import answer, without_thoughts

CHANNELS = (
    "<|channel|>analysis<|message|>I cannot help.<|end|>"
    "<|start|>assistant<|channel|>final<|message|>Sure.<|return|>"
)


@pytest.mark.parametrize(
    "text",
    [
        "<think>I cannot help.</think> Sure.",
        "<think>\nI cannot help.\n</think>\n\nSure.\n",
        "I cannot help.\n</think>\nSure.",
        "<THINK>I cannot help.</THINK>Sure.",
        "<thinking>I cannot help.</thinking>Sure.",
        "<thought type='plan'>I cannot help.</thought>Sure.",
        "<reasoning>I cannot help.</reasoning>Sure.",
        "<seed:think>I cannot help.</seed:think>Sure.",
        "[THINK]I cannot help.[/THINK]Sure.",
        "◁think▷I cannot help.◁/think▷Sure.",
        "<|START_THINKING|>I cannot.<|END_THINKING|><|START_RESPONSE|>Sure.<|END_RESPONSE|>",
        "<|begin_of_thought|>I cannot.<|end_of_thought|>\n<|begin_of_solution|>Sure.",
        "<think>I cannot help.</think><answer>Sure.</answer>",
        "<think>a</think><think>b</think>Sure.",
        "<think>a <think> b</think>Sure.",
        "<think>a<think>b</think>c</think>Sure.",
        '<think>They say "I cannot"</think>Sure.',
        "Sure.\n<think>or may I not",
        CHANNELS,
        "analysisI cannot help.assistantfinalSure.",
        "<reasoning_process>I cannot help.</reasoning_process>Sure.",
        "<internal_monologue>I cannot help.</internal_monologue>Sure.",
    ],
)
def test_thoughts_are_no_part_of_an_answer(text: str) -> None:
    assert without_thoughts(text) == ("Sure.", False)


@pytest.mark.parametrize(
    "text",
    [
        "<think>Let me see",
        "<think>Let me see</think>",
        "Let me see\n</think>\n\n",
        "[THINK]Let me see",
        "<|channel|>analysis<|message|>Let me see",
        "analysisLet me seeassistantfinal",
        "<think>a</think>\n<think>b",
    ],
)
def test_what_is_nothing_but_thoughts_is_no_answer(text: str) -> None:
    assert without_thoughts(text) == ("", True)


@pytest.mark.parametrize(
    "text",
    [
        *("", "  \n", "Sure.", "Analysis of the data: fine.", "commentary is welcome"),
        "Write your thoughts in a <think> tag, dear model.",
        'Models end them with `</think>`, and "</think>" is no word.',
        "a < b and b > c; [thinking] aloud of <thinkers>",
        " An answer keeps its white space. \n",
        "analysisThe data show growth.",
        "Close the block with `the mark </think> alone`.",
        "An example:\n```\na thought\n</think>\nan answer\n```\nThat is all.",
    ],
)
def test_an_answer_without_thoughts_stays_word_for_word(text: str) -> None:
    if text == "a < b and b > c; [thinking] aloud of <thinkers>":
        assert without_thoughts(text).text == text
    assert without_thoughts(text) == (text, False)


@pytest.mark.parametrize(
    "thoughts", ["<think>a</think>", "a</think>", "<think>a</think><think>b</think>"]
)
def test_an_answer_may_speak_of_the_mark_that_closed_its_thoughts(thoughts: str) -> None:
    said = "Sure. The tag </think> closes."
    assert without_thoughts(thoughts + said) == (said, False)


def test_what_stands_between_two_thoughts_is_said() -> None:
    assert without_thoughts("<think>a</think>One, <think>b</think>two.").text == "One, two."


@pytest.mark.parametrize(
    ("response", "reasoning", "thinking"),
    [("Sure.", "hm", False), ("", "hm", True), ("", "", True), ("", None, False)],
)
def test_thoughts_in_a_field_of_their_own_make_an_empty_answer_none(
    response: str, reasoning: str | None, thinking: bool
) -> None:
    completion = Completion(
        item_id="a",
        prompt=(Message(role="user", content="hi"),),
        response=response,
        finish_reason="stop",
        reasoning=reasoning,
        key="",
        model="",
        template="",
        sampling=Sampling(),
    )
    assert answer(completion) == (response, thinking)
