import pytest

from response_tuning.data.steps.restatements import opening, stripped

ANNOUNCED = [
    ("Sure, here is a recipe for chicken soup:", "\n\n1. Boil water."),
    ("Here are five tips for a good night's sleep:", " go to bed early."),
    ("Certainly! Below is a letter to your landlord.", "\n\nDear Sir,"),
    ("Here\u2019s the summary:", "\nIt rained."),
    ("**Here is a poem about love:**", "\n\nRoses are red."),
    ("The following are the detected entities:", " Paris, Rome."),
    ("These are the leagues the teams play in:", "\n- NFL"),
    ("To stay fit, here are some exercises you can do at home:", "\n- Walk."),
    ("No worries! Here is the corrected table:", "\n| a |"),
]


@pytest.mark.parametrize(("announcement", "rest"), ANNOUNCED)
def test_an_announcement_gives_the_instruction_away(announcement: str, rest: str) -> None:
    assert opening(announcement + rest) == announcement
    assert stripped(announcement + rest) == rest.lstrip()


@pytest.mark.parametrize(
    "text",
    [
        "Here is where we met.",
        "Here is the solution:\n\n2 + 2 = 4",
        "Here you go:\n\ncake",
        "Sure, use csvkit. It reads tables.",
        "Here comes the sun, and I say it is all right.",
        "This is the night: the stars are out.",
        "Here is the fix, but be careful with old branches:\n\ngit rebase",
        "The capital of France is Paris. It lies on the Seine.",
        "",
    ],
)
def test_what_says_nothing_of_the_instruction_or_more_than_it_is_none(text: str) -> None:
    assert opening(text) is None
    assert stripped(text) == text


@pytest.mark.parametrize(
    ("instruction", "leading", "rest"),
    [
        ("Name three methods for authentication.", "Three methods for authentication are:", " a"),
        ("How many continents did they know?", "How many continents did they know?", " Three."),
        ("Write a procedure for a vegetable soup", "Procedure for a Vegetable Soup:", "\n1. Peel."),
        ("How do I relieve neck pain?", "There are several ways to relieve neck pain.", " Rest."),
    ],
)
def test_repeating_the_instruction_gives_it_away(instruction: str, leading: str, rest: str) -> None:
    assert opening(leading + rest, instruction) == leading
    assert opening(leading + rest) is None
    assert stripped(leading + rest, instruction) == rest.lstrip()


@pytest.mark.parametrize(
    ("instruction", "response"),
    [
        ("Do cats see in the dark?", "Cats see in the dark. Their eyes are made for it."),
        ("Do cats see in the dark?", "Yes, cats see in the dark: their eyes are made for it."),
        ("What is the largest planet?", "The largest planet is Jupiter: it is a gas giant."),
        ("How many moons has Mars?", "There are two moons of Mars. They are small."),
        ("Compare a long list of very different matters and people", "A list: one, two"),
    ],
)
def test_an_opening_that_answers_or_says_little_is_none(instruction: str, response: str) -> None:
    assert opening(response, instruction) is None


@pytest.mark.parametrize("text", ["Here is a poem about love:", "Here is a poem about love:\n \n"])
def test_a_whole_response_is_never_stripped(text: str) -> None:
    assert opening(text) is None
    assert stripped(text) == text


def test_what_is_left_keeps_its_indentation_and_its_case() -> None:
    text = "Here is a function that adds numbers:\n\n    def add(a, b):\n        return a + b\n"
    assert stripped(text) == "    def add(a, b):\n        return a + b\n"
    assert stripped("Here are three cities: paris, rome, oslo") == "paris, rome, oslo"


@pytest.mark.parametrize(
    "greeting",
    ["Dear Anna,\n\n", "Hello Anna, ", "Hi!\n", "Guten Tag,\n\n", "Sehr geehrte Frau M\n"],
)
def test_an_opening_behind_a_greeting_is_found_and_the_greeting_stays(greeting: str) -> None:
    text = f"{greeting}Here are five tips for green tea:\n\nUse hot water."
    assert opening(text) == "Here are five tips for green tea:"
    assert stripped(text) == f"{greeting}Use hot water."


@pytest.mark.parametrize(
    "text", ["Hello World in Python:\n\nprint()", "Dear Anna,\n\nYour tea left.", "Hello Anna,"]
)
def test_a_greeting_alone_is_no_opening(text: str) -> None:
    assert opening(text) is None
    assert stripped(text) == text
