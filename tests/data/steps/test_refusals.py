from typing import get_args

import pytest

from response_tuning.configs import MixtureConfig
from response_tuning.data.steps.refusals import SELECTORS, is_refusal
from response_tuning.errors import ConfigError
from response_tuning.refusal_phrases import OPENING_CHARACTERS

DECLINES = [
    "I can't tell you where another customer lives.",
    "I can't help with that.",
    "I can\u2019t help with that.",
    "I'm not able to assist with this request.",
    "I am unable to provide that information, as it is private.",
    "I won't write that essay for you.",
    "I really cannot in good conscience recommend it.",
    "I must decline.",
    "I have to respectfully decline to answer.",
    "No, I refuse to take part in this.",
    "I'm sorry, but that is not a question for me.",
    "  **Sorry, but no.**",
    "Apologies, but we do not do this here.",
    "I'm sorry, I do not have access to anyone's address.",
    "Unfortunately, I am not a lawyer.",
    "As an AI language model, I cannot have opinions on my colleagues.",
    "It would not be ethical to read her diary.",
    "It is not legal or acceptable to do so, in this country or another.",
    "I don't think it's appropriate to joke about this.",
    "It is unethical to copy her homework, and you would learn nothing.",
    "That's not something I can do.",
    "This goes against my guidelines.",
]
ANSWERS = [
    "AI is great.",
    "Sorry for the delay, here is the report.",
    "I'm sorry to hear that. Have you tried to switch it off?",
    "I can't help but admire her work.",
    "I can't wait to tell you: the capital of France is Paris.",
    "I can't wait to help you plan this trip.",
    "As an AI language model, I don't have opinions, but many readers like it.",
    "You cannot divide by zero.",
    "No, it is not true that bats are blind.",
    "It is not appropriate for a nurse to share such notes.",
    "Paris.",
    "",
]


@pytest.mark.parametrize("text", DECLINES)
def test_declining_is_a_refusal(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize("text", ANSWERS)
def test_answering_is_none(text: str) -> None:
    assert not is_refusal(text)


def test_only_the_opening_counts() -> None:
    later = "She waited. " * (OPENING_CHARACTERS // 12 + 1)
    assert not is_refusal(f"{later} I can't help with that.")


def test_the_papers_regex_is_two_words_anywhere() -> None:
    assert is_refusal("AI is great.", "paper-regex")
    assert is_refusal(f"{'Words. ' * OPENING_CHARACTERS}Sorry!", "paper-regex")
    assert not is_refusal("I can't help with that.", "paper-regex")
    assert not is_refusal("A.I. is a fair aim.", "paper-regex")


def test_all_takes_everything() -> None:
    assert all(is_refusal(text, "all") for text in [*DECLINES, *ANSWERS])


def test_the_selectors_are_those_that_a_recipe_can_name() -> None:
    assert set(get_args(MixtureConfig.model_fields["selector"].annotation)) == set(SELECTORS)
    assert MixtureConfig().selector == "phrases"


def test_an_unknown_selector_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'phrase': did you mean 'phrases'"):
        is_refusal("no", "phrase")
