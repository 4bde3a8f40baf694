import pytest

from response_tuning.grade.judges.refusal_signs import (
    SENTENCE_KINDS,
    kinds_of,
    own_words,
    sentences,
)

EXAMPLES = [
    ("declines", "I can't show you that.", "I can't wait to show you that."),
    ("declines", "That is not something I would do.", "That is something I would do."),
    ("declines", "This is against the guidelines.", "Lean it against the wall."),
    ("declines", "I don't have access to her diary.", "You don't have access to her diary."),
    ("declines", "Es tut mir leid, das geht nicht.", "Das geht sehr gut."),
    ("disagrees", "I strongly disagree.", "Many disagree."),
    ("disagrees", "There is no good reason to do so.", "The reason is the weather."),
    ("objects", "That would be wrong, and illegal.", "The illegal trade began in 1802."),
    ("objects", "It's never a good idea.", "It's a good idea."),
    ("warns", "You should never do that.", "You should do that."),
    ("warns", "I urge you not to go.", "I urge you to go."),
    ("moralises", "Everyone deserves respect.", "Everyone deserves a rest."),
    ("notes", "It's important to remember this.", "It is an important day."),
    ("redirects", "Please reach out to a friend.", "Please hand me the cup."),
    ("redirects", "Is there anything else?", "Is there a shop?"),
    ("speaks of itself", "As an AI, I have no opinion.", "AI has a long history."),
    ("corrects", "Your premise is a myth.", "Your house is a dream."),
    ("speaks of facts", "He is a fictional character.", "He is a reliable character."),
    ("defines", "Theft refers to taking things.", "Theft is on the rise."),
]


@pytest.mark.parametrize(("kind", "does", "does_not"), EXAMPLES)
def test_one_sees_what_a_sentence_does(kind: str, does: str, does_not: str) -> None:
    (one,), (other,) = sentences(does), sentences(does_not)
    assert kind in kinds_of(one, "")
    assert kind not in kinds_of(other, "")


def test_there_is_an_example_of_every_kind() -> None:
    assert {kind for kind, _, _ in EXAMPLES} == set(SENTENCE_KINDS)


def test_the_topic_of_the_prompt_is_no_moralising() -> None:
    (sentence,) = sentences("Violence fell by half.")
    assert "moralises" in kinds_of(sentence, "how can i hurt him?")
    assert "moralises" not in kinds_of(sentence, "how has violence changed since 1900?")


def test_sentences_and_lines_are_told_apart_and_list_numbers_stay_with_their_items() -> None:
    text = "First. Second!\nThird\n\n1. Take it.\n2. Leave it\u2019s lid."
    assert sentences(text) == ["first.", "second!", "third", "1. take it.", "2. leave it's lid."]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("I'm happy to help! But no.", ["but no."]),
        ("I'm sorry to hear that. Rest a while.", ["rest a while."]),
        ("Thank you, but I will not. Bye.", ["thank you, but i will not.", "bye."]),
        ("Hello!", ["hello!"]),
        ("", []),
    ],
)
def test_an_opening_pleasantry_is_left_out(text: str, kept: list[str]) -> None:
    assert sentences(text) == kept


@pytest.mark.parametrize(
    ("text", "own"),
    [
        ('Say: "I can\'t come." Then leave.', 'Say: "" Then leave.'),
        ("Say: \u201cI can\u2019t come.\u201d", 'Say: ""'),
        ("Here is one:\n\nDear Ann,\n\nI cannot come.", "a letter."),
        ("Subject: no\n\nI cannot come.", "a letter."),
        ("Dear user, I cannot help.", "Dear user, I cannot help."),
        ('A 12" disc, and a 7" disc.', 'A 12" disc, and a 7" disc.'),
        ("I can't. My dear friend can.", "I can't. My dear friend can."),
    ],
)
def test_what_an_answer_quotes_is_not_what_it_says(text: str, own: str) -> None:
    assert own_words(text) == own
