import pytest

from response_tuning.pairing import copied_share, words


@pytest.mark.parametrize(
    ("text", "source", "share"),
    [
        ("Why is the sky blue?", "Why is the sky blue?", 1.0),
        ("why is the SKY blue why is the sky blue", "Why is the sky blue?", 1.0),
        ("Because of light.", "Why is the sky blue?", 0.0),
        ("The sky is blue because the air scatters it.", "Why is the sky blue?", 0.0),
        ("You ask: why is the sky blue? Light scatters in air.", "Why is the sky blue?", 5 / 11),
        # A source of fewer words than a run is a run by itself.
        ("Define osmosis. Define osmosis.", "Define osmosis", 1.0),
        ("Osmosis is how water moves.", "Define osmosis", 0.0),
        ("a b c d e x b c d e f", "a b c d e f", 10 / 11),
        ("", "Why?", 0.0),
        ("Why?", "", 0.0),
        ("!?", "Why?", 0.0),
    ],
)
def test_the_share_of_copied_words_is_known(text: str, source: str, share: float) -> None:
    assert copied_share(text, source) == pytest.approx(share)


def test_words_ignore_case_and_punctuation() -> None:
    assert words("It's 20 °C -- naïve!") == ["it", "s", "20", "c", "naïve"]
