from pathlib import Path
from xml.etree import ElementTree

import pytest

from response_tuning.miniature.curve import draw_losses


def drawn(losses: list[float], path: Path) -> str:
    draw_losses(losses, 100, path)
    return path.read_text()


def test_the_same_losses_give_the_same_bytes_and_others_give_others(tmp_path: Path) -> None:
    first = drawn([3.0, 2.0, 1.0], tmp_path / "a.svg")
    assert first == drawn([3.0, 2.0, 1.0], tmp_path / "b.svg")
    assert first != drawn([3.0, 2.0, 1.5], tmp_path / "c.svg")


@pytest.mark.parametrize("steps", [1, 2, 249, 250, 5000])
def test_a_curve_of_any_length_is_a_picture_with_named_axes(steps: int, tmp_path: Path) -> None:
    page = ElementTree.fromstring(drawn([1.0] * steps, tmp_path / "loss.svg"))
    words = " ".join(page.itertext())
    assert "million tokens" in words
    assert "loss, nats a token" in words
