import subprocess
import sys

import pytest

from response_tuning.data.steps.language import READ, SHORTEST, language


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "The weather will be fine tomorrow, with some wind."),
        ("de", "Das Wetter wird morgen schön, mit etwas Wind."),
        ("fr", "Il fera beau demain, avec un peu de vent."),
        ("es", "Mañana hará buen tiempo, con algo de viento."),
        ("zh", "我的家乡有着美丽的自然风景和悠久的历史文化。"),
        ("ja", "明日は天気が良く、少し風が吹くでしょう。"),
    ],
)
def test_a_sentence_tells_its_language(code: str, text: str) -> None:
    assert language(text) == code


@pytest.mark.parametrize(
    "text", ["", "Yes.", "Positive", "x" * (SHORTEST - 1), "42 17 99 3 1 88 21 45"]
)
def test_short_texts_and_numbers_have_no_language(text: str) -> None:
    assert language(text) is None


def test_a_text_is_judged_by_its_beginning() -> None:
    english = "The weather will be fine tomorrow. " * (READ // 35 + 1)
    assert language(english + "Das Wetter wird morgen schön. " * 1000) == "en"


def test_half_a_surrogate_pair_is_no_error() -> None:
    assert language("The weather will be fine tomorrow \ud800, with some wind.") == "en"


def test_the_model_is_loaded_when_it_is_first_needed() -> None:
    probe = "import sys, response_tuning.data.steps.language; print('py3langid' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    assert run.stdout == "False\n"
