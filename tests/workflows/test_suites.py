from pathlib import Path

import pytest

from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError
from response_tuning.workflows.suites import evaluation_of

GENERATING = {"engine": "hf", "template": None}
JUDGE = {"engine": "openai", "settings": {"model": "m", "base_url": "http://127.0.0.1:9/v1"}}
PATHS = {"alpaca-eval": "a.json", "just-eval": "j.json"}


def grading(suite: str, **grading: object) -> tuple[tuple[str, ...], GradeConfig, str]:
    """Benchmarks of the suite that are possible, settings of their grading, and notes."""
    found = evaluation_of("m", [suite], grading, GENERATING)
    return tuple(found.benchmarks), found.grade, " ".join(found.notes)


def test_benchmarks_that_lack_a_judge_or_a_reference_are_left_out_with_a_note() -> None:
    names, _, notes = grading("helpfulness", judge=JUDGE)
    assert names == ("acceptability", "just-eval")
    assert notes.startswith("alpaca-eval was left out: ")
    with pytest.raises(ConfigError, match="just-eval was left out: it needs a judge"):
        grading("helpfulness")
    with pytest.raises(ConfigError, match=r"digits, such as --judge hf --judge-model FOLDER --set"):
        grading("grades")


def test_a_copy_stays_where_another_benchmark_of_the_suite_reads_it_too() -> None:
    _, config, _ = grading("helpfulness", judge=JUDGE, paths=PATHS)
    assert config.paths == {name: Path(path) for name, path in PATHS.items()}


def test_a_copy_under_the_name_of_a_benchmark_that_reads_another_ones_is_kept_to_be_refused() -> (
    None
):
    _, config, _ = grading("helpfulness", judge=JUDGE, paths={"acceptability": "a.json"})
    assert [*config.paths] == ["acceptability"]


def test_the_copy_of_a_benchmark_that_is_left_out_is_no_mistake() -> None:
    names, config, _ = grading("all", paths=PATHS)
    assert "xstest" in names
    assert config.paths == {}
