import base64
import re
from pathlib import Path
from typing import Any

import pytest

from response_tuning.probe.page import (
    MEANINGS,
    Contents,
    Figure,
    Model,
    Told,
    sentence,
    shown,
    write_page,
)

EVIL = "<script>alert(1)</script>"


def contents(**changes: Any) -> Contents:
    figures = {metric: Figure(0.8, 0.7, 0.9, 3) for metric in MEANINGS}
    told = [
        Told(pmi, f"instruction {n}", f"response {n}") for n, pmi in enumerate((-1.5, 4.0, 9.25))
    ]
    values: dict[str, Any] = {
        "verdict": "weak",
        "models": [Model("base", figures)],
        "told": told,
        "differences": [],
        "notes": ["3 instructions."],
        "confidence": 0.95,
    }
    return Contents(**values | changes)


def page(folder: Path, **changes: Any) -> str:
    write_page(contents(**changes), folder / "probe.html")
    return (folder / "probe.html").read_text(encoding="utf-8")


def test_a_page_shows_the_verdict_the_figures_and_the_ends_of_the_distribution(
    tmp_path: Path,
) -> None:
    text = page(tmp_path)
    assert "base ties responses to their instructions a little." in text
    assert "80.0%" in text
    assert "[70.0%, 90.0%]" in text
    assert "95&nbsp;% interval" in text
    assert text.index("instruction 2") < text.index("instruction 0")
    assert "67% of 3 instructions make their response more probable" in text


def test_no_text_of_a_model_or_of_the_data_becomes_part_of_the_page(tmp_path: Path) -> None:
    text = page(
        tmp_path,
        models=[Model(f"{EVIL}name", contents().models[0].figures)],
        told=[Told(1.0, f"{EVIL}instruction", f"{EVIL}response")],
        differences=[f"{EVIL}difference"],
        notes=[f"{EVIL}note"],
    )
    assert "<script" not in text
    for part in ("name", "instruction", "response", "difference", "note"):
        assert f"&lt;script&gt;alert(1)&lt;/script&gt;{part}" in text


def test_a_page_needs_nothing_else_and_is_small(tmp_path: Path) -> None:
    long = [Told(float(n), "word " * 2000, "☃" * 9000) for n in range(1000)]
    text = page(tmp_path, told=long)
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text)
    assert "default-src 'none'" in text
    assert len(text.encode()) < 200_000


def test_the_same_findings_give_the_same_bytes(tmp_path: Path) -> None:
    assert page(tmp_path) == page(tmp_path)


def test_the_plot_is_a_picture_with_a_sentence_for_those_who_cannot_see_it(tmp_path: Path) -> None:
    found = re.search(
        r'<img src="data:image/svg\+xml;base64,([^"]+)" alt="([^"]+)"', page(tmp_path)
    )
    assert found
    assert base64.b64decode(found[1]).startswith(b"<?xml")
    assert "by 4.0 nats in the median" in found[2]


def test_models_that_are_compared_have_a_column_and_a_line(tmp_path: Path) -> None:
    figures = {"ranked_pmi": Figure(0.5, 0.4, 0.6, 3)}
    both = [*contents().models, Model("tuned", figures)]
    text = page(tmp_path, models=both, differences=["tuned: ranked_pmi -30.0%"])
    assert '<th class="n" scope="col">tuned</th>' in text
    assert "<li>tuned: ranked_pmi -30.0%</li>" in text
    assert "Against base" in text
    assert "Against base" not in page(tmp_path)


@pytest.mark.parametrize("verdict", ["none", "weak", "strong"])
def test_every_verdict_states_its_threshold_and_the_figure(verdict: str) -> None:
    said = sentence(contents(verdict=verdict))
    assert "80.0% of the other responses do, 70.0% at least" in said
    assert "without any model, gets 80.0%, and chance 50 %" in said
    assert ("5 points below the words" in said) == (verdict != "none")


def test_numbers_are_shares_powers_or_plain() -> None:
    assert shown("ranked_total", 0.1234) == "12.3%"
    assert shown("stop_at_end", 1.234e-6) == "1.2e-06"
    assert shown("stop_at_end", 0.91234) == "0.912"
    assert shown("pmi", -3.14159) == "-3.14"
