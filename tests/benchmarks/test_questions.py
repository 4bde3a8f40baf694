import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from response_tuning.errors import DataError

SCRIPT = Path(__file__).parents[2] / "benchmarks/questions.py"
QUESTIONS = runpy.run_path(str(SCRIPT))
Curve, fit_curve, copied = (QUESTIONS[name] for name in ("Curve", "fit_curve", "copied"))
COUNTS = (8, 16, 32, 64, 125, 250, 500, 1000)


def point(count: int, score: float, clusters: int = 1) -> Any:
    """Scores of 100 prompts about that many things, of which the model knows a share."""
    each = 100 / clusters
    known = np.clip(score * clusters - np.arange(clusters), 0, 1)
    return QUESTIONS["Point"](count, each * known, np.full(clusters, each))


def test_a_learning_curve_is_found_again() -> None:
    true = Curve(0.85, 50, 1.5)
    found = fit_curve([(n, true.at(n)) for n in COUNTS])
    assert found.at(2000) == pytest.approx(true.at(2000), abs=0.002)
    assert found.half == pytest.approx(50, rel=0.02)


def test_no_curve_is_fitted_to_three_counts_or_to_nothing() -> None:
    assert fit_curve([(8, 0.1), (16, 0.2), (32, 0.3)]) is None
    assert fit_curve([(n, 0.0) for n in COUNTS]) is None


def test_a_curve_has_each_seed_an_interval_and_what_more_would_bring() -> None:
    true = Curve(0.85, 50, 1.5)
    points = [point(n, true.at(n) + shift) for n in COUNTS for shift in (-0.01, 0.0, 0.01)]
    QUESTIONS["_curve"].__globals__["RESAMPLES"] = 40
    lines = [*QUESTIONS["_curve"]("rt", "test", points)]
    assert lines[1].count(",") == 2, "three seeds"
    (beyond,) = (line for line in lines if "extrapolated" in line)
    assert "fitted at 2,000: 84" in beyond
    assert "twice 1,000 would bring 0." in lines[-1]
    assert "not worth it" in lines[-1]
    assert lines[-1].endswith("it ends being so at about 1,024 [1,024, 1,024]")


def test_the_interval_of_a_curve_is_wider_where_prompts_ask_about_few_things() -> None:
    true = Curve(0.85, 50, 1.5)

    def width(clusters: int) -> float:
        points = [point(n, true.at(n), clusters) for n in COUNTS for _ in range(3)]
        (line,) = (one for one in QUESTIONS["_curve"]("rt", "t", points) if "at 1,000:" in one)
        low, high = line.partition("[")[2].rstrip("]").split(", ")
        return float(high) - float(low)

    QUESTIONS["_curve"].__globals__["RESAMPLES"] = 40
    assert width(10) > 1.5 * width(100) > 1


def test_what_an_answer_copies_is_its_longest_run_and_its_nearest_response() -> None:
    responses = [("the", "sum", "of", "3", "and", "4", "is", "7"), ("red", "is", "a", "colour")]
    whole = copied(("the", "sum", "of", "3", "and", "4", "is", "7"), responses)
    assert whole == (8, 1.0, 1.0)
    part = copied(("the", "sum", "of", "5", "and", "4", "is", "9"), responses)
    assert (part.run, part.share) == (3, 3 / 8), "'the sum of', or 'and 4 is'"
    assert part.nearest == pytest.approx(2 / 10)
    assert copied(("no",), responses) == (0, 0.0, 0.0)


def test_general_text_drifts_by_nothing_if_nothing_was_tuned(
    tiny_base: Path, tmp_path: Path
) -> None:
    import shutil

    texts = tmp_path / "texts.jsonl"
    rows = ({"text": f"The sun rose at {n} and the birds sang."} for n in range(3))
    texts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tiny_base.parent / "same"
    shutil.copytree(tiny_base, folder, dirs_exist_ok=True)
    (folder / "chat_template.jinja").write_text(
        Path("src/response_tuning/templates/tulu.jinja").read_text()
    )
    found = QUESTIONS["drifted"](folder, str(tiny_base), QUESTIONS["_texts"](texts))
    assert found.kl == pytest.approx(0, abs=1e-6)
    assert (found.more, *found.interval()) == pytest.approx((0, 0, 0), abs=1e-6)
    assert found.base > 1


def test_what_is_forgotten_is_asked_of_every_register_of_the_corpus() -> None:
    texts = QUESTIONS["_of_the_corpus"]()
    assert {"all", "transcript", "manual", "office"} <= {*texts}
    assert len({tuple(every) for every in texts.values()}) == len(texts)


def test_a_folder_without_tuned_cells_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.json"):
        QUESTIONS["tuned_cells"](tmp_path)
