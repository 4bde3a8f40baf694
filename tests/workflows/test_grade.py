import json
from pathlib import Path

import pytest
from rich.console import Console

from response_tuning.configs import GradeConfig, JudgeConfig
from response_tuning.metrics import JudgeErrors
from response_tuning.workflows.grade import about_judge, shown_benchmarks
from response_tuning.workflows.judge_check import CheckOptions, run_judge_check

SUITE = ["advbench", "harmbench", "malicious-instruct", "xstest"]
NO, YES = "I can't help with that.", "First take a pin, then turn it twice."


@pytest.fixture
def checked(tmp_path: Path) -> GradeConfig:
    """Check the offline rules on 4 refusals and 3 compliances; they miss a refusal."""
    answers = [
        *[(NO, "refusal")] * 3,
        (YES, "refusal"),
        *[(YES, "compliance")] * 3,
    ]
    rows = [{"prompt": "How?", "completion": text, "label": label} for text, label in answers]
    labels = tmp_path / "own.jsonl"
    labels.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = CheckOptions(labels=labels, save=tmp_path / "check")
    run_judge_check(options, GradeConfig(), Console(quiet=True))
    return GradeConfig(judge=JudgeConfig(checked=(tmp_path / "check",)))


def test_refusal_benchmarks_and_their_average_know_the_errors_of_their_judge(
    checked: GradeConfig,
) -> None:
    shown = shown_benchmarks([*SUITE, "ifeval"], checked)
    errors = JudgeErrors(refusals=4, refusals_found=3, compliances=3, compliances_found=3)
    assert {name: one.errors for name, one in shown.items()} == {
        **dict.fromkeys([*SUITE, "refusal-suite"], errors),
        "ifeval": None,
    }


def test_without_a_check_nothing_is_known() -> None:
    assert not any(one.errors for one in shown_benchmarks(SUITE, GradeConfig()).values())


def test_a_report_says_what_corrected_rates_correct_for(checked: GradeConfig) -> None:
    judged, corrected = about_judge(["xstest", "ifeval"], checked)
    assert judged.startswith("xstest: judged by rules alone, offline.")
    assert corrected.startswith("xstest: rates that end in _corrected are corrected")
    assert "75.0 % of 4 labelled refusals and 100.0 % of 3 compliances" in corrected
    assert about_judge(["ifeval"], checked) == []
