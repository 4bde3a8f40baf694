from pathlib import Path

import pytest
from rich.console import Console

from response_tuning.artifacts import Completion, Example, read_json, read_jsonl
from response_tuning.workflows.experiment import cells, read_experiment
from response_tuning.workflows.run import run_experiment

RECIPE = Path(__file__).parents[2] / "recipes" / "neighbours" / "self-judge.yaml"
TINY = [
    *("data.max_examples=8", "finetune.max_steps=2", "finetune.examples_per_step=8"),
    *("grade.limit=2", "benchmarks=[miniature-judge, miniature-judge-keys-reference]"),
    "seeds=[0]",
]
RUN = ("base/seed-0", "self-judge/seed-0", "response/seed-0")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe on tiny settings: three of its variants."""
    out = tmp_path_factory.mktemp("self-judge") / "run"
    run_experiment(read_experiment(RECIPE, TINY), out, Console(quiet=True), only=RUN)
    return out


def test_every_variant_of_the_recipe_makes_its_own_data_or_loss() -> None:
    every = [cell for cell in cells(read_experiment(RECIPE)) if cell.tuned and cell.seed == 0]
    made = {(str(cell.data), str(cell.finetune)) for cell in every}
    assert len(made) == len(every) == 6


def test_the_recipe_runs_to_its_report(run: Path) -> None:
    report = (run / "report" / "report.md").read_text()
    for variant in ("base", "self-judge", "response"):
        totals = read_json(run / variant / "seed-0" / "grade" / "miniature-judge.totals.json")
        found = {total["metric"]: total["value"] for total in totals["totals"]}
        assert found["random"] <= found["oracle"]
        assert 0 <= found["best_of_4"] <= found["oracle"]
    assert "best_of_4" in report
    assert "oracle" in report


def test_both_prompts_of_an_answer_are_trained_on_and_every_term_is_logged(run: Path) -> None:
    examples = [*read_jsonl(run / "self-judge/seed-0/data/examples.jsonl", Example)]
    assert [example.turn for example in examples] == [0, 1] * 8
    metrics = (run / "self-judge/seed-0/finetune/metrics.jsonl").read_text()
    for term in ("with_reference", "without_reference", "divergence"):
        assert metrics.count(f"term_{term}") == 2
    alone = [*read_jsonl(run / "response/seed-0/data/examples.jsonl", Example)]
    assert all("Question" not in str(example.instruction) for example in alone[1::2])


def test_a_judge_answers_with_digits(run: Path) -> None:
    answers = [*read_jsonl(run / "self-judge/seed-0/generate/miniature-judge.jsonl", Completion)]
    assert len(answers) == 8
    assert all(str(one.response) in "0123456789" for one in answers)
    assert all(0 <= (one.expected_digit or -1) <= 9 for one in answers)
