"""``rtune data grades``: answers get grades from 0 to 9, for a judge to learn (``data.judging``).

OUT/graded.jsonl  grades.json
"""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from response_tuning.artifacts import file_digest, write_json, written_aside
from response_tuning.configs import Config, EngineConfig, EngineSettings
from response_tuning.folders import locked
from response_tuning.judging import Form
from response_tuning.workflows import judged_answers
from response_tuning.workflows.judged_answers import View

if TYPE_CHECKING:
    from rich.console import Console


class GradesConfig(Config):
    """Which answers are graded, and by whom."""

    source: Path
    """A JSONL, JSON, CSV or Parquet file with instruction, response and reference in each row."""
    form: Form = "full"
    """Of the prompt in which the model rates an answer."""
    settings: EngineSettings = Field(default_factory=EngineConfig)
    """The model that wrote the answers: its own rating of each, with the reference in view."""


def run_grades(config: GradesConfig, out: Path, console: "Console") -> None:
    """Write the rows with ``digit``, ``rating`` and ``similarity`` to ``out``.

    Raises:
        ConfigError: no model is named.
        DataError: a row lacks an instruction, a response or a reference.
        EngineError: the model cannot rate some answers.
    """
    from response_tuning.data.grades import digits_of, similarities

    judged_answers.check_judge_model(config.settings)
    answers = judged_answers.read_answers(config.source, ("instruction", "response", "reference"))
    with locked(out, config.source):
        engine = judged_answers.open_judge(config.settings)
        journal = out / judged_answers.JOURNAL
        view = View(config.form, reference=True)
        ratings = judged_answers.grades(engine, answers, view, journal, console)
        references = [str(one.reference) for one in answers]
        alike = similarities([one.response for one in answers], references).tolist()
        digits = digits_of(ratings, alike)
        with written_aside(out / "graded.jsonl") as file:
            for one, digit, rating, likeness in zip(answers, digits, ratings, alike, strict=True):
                own = {"digit": digit, "rating": rating, "similarity": likeness}
                file.write(json.dumps(one.fields | own, ensure_ascii=False) + "\n")
        account = _account(config, engine.model, ratings, alike, digits)
        write_json(out / "grades.json", account)
    counts = ", ".join(f"{digit}: {count:,}" for digit, count in sorted(Counter(digits).items()))
    for line in (
        f"{len(answers):,} answers; rating and similarity agree with a rank correlation of "
        f"{_shown(account['rank_correlation'])}",
        f"answers by digit: {counts}",
        f"wrote {out / 'graded.jsonl'}; tune on it with --set data.judging={{}}",
    ):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _account(
    config: GradesConfig, model: str, ratings: list[float], alike: list[float], digits: list[int]
) -> dict[str, Any]:
    from scipy.stats import spearmanr

    spread = len({*ratings}) > 1 and len({*alike}) > 1
    return {
        "source": {"path": str(config.source.resolve()), "sha256": file_digest(config.source)},
        "settings": config.model_dump(mode="json"),
        "model": model,
        "answers": len(digits),
        "digits": {str(digit): count for digit, count in sorted(Counter(digits).items())},
        "rank_correlation": float(spearmanr(ratings, alike)[0]) if spread else None,
    }


def _shown(value: float | None) -> str:
    return "unknown: all ratings or all similarities are equal" if value is None else f"{value:.2f}"
