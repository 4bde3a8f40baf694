import base64
import re
from pathlib import Path
from typing import Any

import pytest

from response_tuning.probe.page import (
    METRIC_LABELS,
    Interval,
    ProbedModel,
    ProbeExample,
    ProbeReport,
    formatted,
    sentence,
    write_page,
)
from response_tuning.probe.template_fit import TemplateFit, rate_templates

EVIL = "<script>alert(1)</script>"
FOREIGN = TemplateFit("foreign", -3.0, -4.0)


def report(**changes: Any) -> ProbeReport:
    metrics = {metric: Interval(0.8, 0.7, 0.9, 3) for metric in METRIC_LABELS}
    examples = [
        ProbeExample(pmi, f"instruction {n}", f"response {n}")
        for n, pmi in enumerate((-1.5, 4.0, 9.25))
    ]
    values: dict[str, Any] = {
        "ranking": "weak",
        "template": "tulu",
        "templates": rate_templates([TemplateFit("tulu", -0.2, -1.2), FOREIGN]),
        "models": [ProbedModel("base", metrics)],
        "examples": examples,
        "differences": [],
        "notes": ["3 instructions."],
        "confidence": 0.95,
    }
    return ProbeReport(**values | changes)


def page(folder: Path, **changes: Any) -> str:
    write_page(report(**changes), folder / "probe.html")
    return (folder / "probe.html").read_text(encoding="utf-8")


def test_a_page_shows_the_verdict_the_figures_and_the_ends_of_the_distribution(
    tmp_path: Path,
) -> None:
    text = page(tmp_path)
    assert '<p class="word weak">Weak.</p>' in text
    assert "base prefers an instruction&#39;s own response" in text
    assert text.index("Weak.") < text.index("base prefers")
    assert "80.0 %" in text
    assert "[70.0 %, 90.0 %]" in text
    assert "95&nbsp;% confidence interval" in text
    assert text.index("instruction 2") < text.index("instruction 0")
    assert "67 % of 3 instructions make their response more probable" in text


def test_no_text_of_a_model_or_of_the_data_becomes_part_of_the_page(tmp_path: Path) -> None:
    text = page(
        tmp_path,
        models=[ProbedModel(f"{EVIL}name", report().models[0].metrics)],
        examples=[ProbeExample(1.0, f"{EVIL}instruction", f"{EVIL}response")],
        differences=[f"{EVIL}difference"],
        notes=[f"{EVIL}note"],
    )
    assert "<script" not in text
    for part in ("name", "instruction", "response", "difference", "note"):
        assert f"&lt;script&gt;alert(1)&lt;/script&gt;{part}" in text


def test_a_page_needs_nothing_else_and_is_small(tmp_path: Path) -> None:
    long = [ProbeExample(float(n), "word " * 2000, "☃" * 9000) for n in range(1000)]
    text = page(tmp_path, examples=long)
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
    assert "the median gain is 4.0 nats" in found[2]


def test_models_that_are_compared_have_a_column_and_a_line(tmp_path: Path) -> None:
    metrics = {"ranked_pmi": Interval(0.5, 0.4, 0.6, 3)}
    both = [*report().models, ProbedModel("tuned", metrics)]
    text = page(tmp_path, models=both, differences=["tuned: ranked_pmi -30.0 %"])
    assert '<th class="n" scope="col">tuned</th>' in text
    assert "<li>tuned: ranked_pmi -30.0 %</li>" in text
    assert "Compared with base" in text
    assert "Compared with base" not in page(tmp_path)


@pytest.mark.parametrize("ranking", ["none", "weak", "strong"])
def test_every_verdict_states_its_threshold_and_the_figure(ranking: str) -> None:
    words = sentence(report(ranking=ranking))
    assert "in 80.0 % of comparisons (95 % CI from 70.0 %)" in words
    assert "without a model, gets 80.0 %; chance is 50 %" in words
    assert ("5 points below the words" in words) == (ranking != "none")


def test_a_foreign_template_makes_a_strong_ranking_no_sign_and_says_what_to_do() -> None:
    assert report(ranking="strong").verdict == "strong"
    assert sentence(report(ranking="strong")).startswith("Strong. base prefers")
    foreign = report(ranking="strong", template="foreign")
    assert foreign.verdict == "none"
    words = sentence(foreign)
    assert words.startswith("No sign. base prefers")
    assert "'foreign' gives 2.80 nats less than 'tulu' given the instruction (limit 0.6)" in words
    assert words.endswith(
        "Run 'rtune probe' with --templates all to find the best template for this base."
    )


def test_what_others_reached_is_said_only_of_a_base_that_knows_the_subject() -> None:
    assert "response tuning reached 62 to 97 %" in sentence(report(ranking="strong"))
    assert "response tuning reached" not in sentence(report(ranking="weak"))


def test_a_template_that_was_not_compared_leaves_the_ranking_to_decide(tmp_path: Path) -> None:
    alone = report(ranking="strong", templates=[])
    assert alone.verdict == "strong"
    assert "nats less" not in sentence(alone)
    assert "<h2>Templates</h2>" not in page(tmp_path, templates=[])
    assert "<h2>Templates</h2>" in page(tmp_path)


def test_numbers_are_shares_powers_or_plain() -> None:
    assert formatted("ranked_total", 0.1234) == "12.3 %"
    assert formatted("stop_at_end", 1.234e-6) == "1.2e-06"
    assert formatted("stop_at_end", 0.91234) == "0.912"
    assert formatted("pmi", -3.14159) == "-3.14"
