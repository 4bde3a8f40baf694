from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from response_tuning.artifacts import Completion, Example, Score, read_json, read_jsonl
from response_tuning.configs import GradeConfig
from response_tuning.errors import DataError
from response_tuning.grade import Benchmark, open_benchmark
from response_tuning.grade.benchmark import Totalled
from response_tuning.workflows.experiment import cells, read_experiment
from response_tuning.workflows.run import run_experiment

Make = Callable[..., Completion]
CONFIG = GradeConfig(limit=12)
RECIPE = Path(__file__).parents[3] / "recipes" / "neighbours" / "self-judge.yaml"
TINY = [
    *("data.max_examples=8", "finetune.max_steps=2", "finetune.examples_per_step=8"),
    *("grade.limit=2", "benchmarks=[miniature-judge, miniature-judge-keys-reference]"),
    "seeds=[0]",
]
RUN = ("base/seed-0", "self-judge/seed-0", "response/seed-0")


def graded(name: str, grade: Callable[[str, int], float], make: Make) -> dict[str, float]:
    """The totals of a judge that gives the answers of a prompt these grades."""
    rule = open_benchmark(name, CONFIG)
    assert isinstance(rule, Benchmark)
    assert isinstance(rule, Totalled)
    scores: list[Score] = []
    for number, item in enumerate(rule.items()):
        value = grade(item.prompt[0].content, number)
        reply = make(item, "5").model_copy(update={"expected_digit": value})
        scores += rule.score(item, reply)
    return {total.metric: total.value for total in rule.totals(scores)}


def looks_sound(prompt: str, number: int) -> float:
    answer = prompt.split("Answer: ")[1].removesuffix("\nGrade:")
    whole = answer[0].isupper() or answer[0].isdigit()
    return 9.0 if whole and answer.endswith((".", "!")) and answer.count(".") == 1 else 0.0


def test_a_judge_of_form_ranks_sound_answers_first_and_chooses_almost_as_an_oracle(
    completion: Make,
) -> None:
    found = graded("miniature-judge", looks_sound, completion)
    assert found["auroc_seen"] > 0.9
    assert found["auroc_unseen"] > 0.9
    assert found["random"] < found["best_of_4"] <= found["oracle"]


def test_a_judge_that_gives_all_the_same_grade_is_at_chance(completion: Make) -> None:
    found = graded("miniature-judge", lambda prompt, number: 4.5, completion)
    assert found["auroc_seen"] == found["auroc_unseen"] == 0.5
    assert found["best_of_4"] == pytest.approx(found["random"])


def test_only_a_judge_that_sees_the_reference_can_know_the_keys(completion: Make) -> None:
    def reference_looks_sound(prompt: str, number: int) -> float:
        lines = dict(line.split(": ", 1) for line in prompt.splitlines()[:-1])
        return looks_sound(f"Answer: {lines.get('Reference', lines['Answer'])}\nGrade:", number)

    with_reference = graded("miniature-judge-keys-reference", reference_looks_sound, completion)
    assert with_reference["auroc_seen"] > 0.9
    assert graded("miniature-judge-keys", reference_looks_sound, completion)["auroc_seen"] == 0.5


@pytest.mark.parametrize(
    ("name", "headings"),
    [
        ("miniature-judge", ["Question", "Answer"]),
        ("miniature-judge-response", ["Answer"]),
        ("miniature-judge-reference", ["Question", "Reference", "Answer"]),
        ("miniature-judge-shuffled", ["Question", "Answer"]),
    ],
)
def test_the_name_says_what_the_judge_sees(name: str, headings: list[str]) -> None:
    items = open_benchmark(name, CONFIG).items()
    assert len(items) == 4 * 12
    for item in items:
        lines = item.prompt[0].content.splitlines()
        assert [line.split(": ")[0] for line in lines] == [*headings, "Grade:"]


def test_shuffled_items_are_the_same_answers_behind_other_questions() -> None:
    plain = open_benchmark("miniature-judge").items()
    shuffled = open_benchmark("miniature-judge-shuffled").items()
    for one, other in zip(plain, shuffled, strict=True):
        question, answer = one.prompt[0].content.split("\nAnswer: ")
        another, same = other.prompt[0].content.split("\nAnswer: ")
        assert answer == same
        assert question != another


def test_an_answer_in_words_is_no_grade(completion: Make) -> None:
    rule = open_benchmark("miniature-judge", CONFIG)
    assert isinstance(rule, Benchmark)
    item = rule.items()[0]
    with pytest.raises(DataError, match=r"generate\.settings\.digits=true"):
        [*rule.score(item, completion(item, "9"))]


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
