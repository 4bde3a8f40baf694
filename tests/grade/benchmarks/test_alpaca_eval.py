import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from response_tuning.artifacts import (
    Completion,
    Request,
    Score,
    file_digest,
    read_json,
    read_jsonl,
    write_jsonl,
)
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError, DataError
from response_tuning.grade import JudgedBenchmark, grade, open_benchmark
from response_tuning.grade.benchmark import AskJudge, Totalled

Make = Callable[..., Completion]
NAME = "alpaca-eval"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = [
    {"dataset": "koala", "instruction": "Name a {fruit}.", "output": "A pear.", "generator": "r"},
    {"dataset": "oasst", "instruction": "Say hello.", "output": "Hello.", "generator": "r"},
    {"dataset": "koala", "instruction": "Count to 2.", "output": "One, two.", "generator": "r"},
]


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("response_tuning.grade.judges.pairwise.WIN_RATE_RESAMPLES", 50)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of local copies, with three instructions."""
    path = tmp_path / "data" / "alpaca_eval" / "reference_text_davinci_003.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(ROWS))
    return tmp_path / "data"


@pytest.fixture
def config(data: Path) -> Callable[..., GradeConfig]:
    """Settings with a judge and, as the reference, the local copy's own outputs."""

    def make(**settings: Any) -> GradeConfig:
        reference = str(data / "alpaca_eval" / "reference_text_davinci_003.json")
        judge = {"engine": "scripted"}
        given = {"data": data, "reference": reference, "judge": judge, **settings}
        return GradeConfig.model_validate(given)

    return make


@pytest.fixture
def answer_wins(completion: Make) -> AskJudge:
    """A judge that prefers the answer that is graded to the reference's."""

    def ask(requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            label = "A" if request.item_id.endswith("first") else "B"
            yield completion(request, f"Verdict: {label}")

    return ask


def test_the_items_are_the_instructions_in_the_groups_of_their_datasets(data: Path) -> None:
    rule = open_benchmark(NAME, GradeConfig(data=data))
    items = rule.items()
    assert [(item.item_id, item.group) for item in items] == [
        ("alpaca-eval-000", "koala"),
        ("alpaca-eval-001", "oasst"),
        ("alpaca-eval-002", "koala"),
    ]
    assert [item.prompt[0].content for item in items] == [row["instruction"] for row in ROWS]
    assert rule.items() == items
    assert isinstance(rule, JudgedBenchmark)
    assert isinstance(rule, Totalled)


def test_a_list_without_datasets_has_items_without_groups(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('[{"instruction": "Why?"}]')
    (item,) = open_benchmark(NAME, GradeConfig(paths={NAME: path})).items()
    assert item.group == ""


def test_a_limit_keeps_the_ids_of_the_items(config: Callable[..., GradeConfig]) -> None:
    limited = open_benchmark(NAME, config(limit=2)).items()
    assert [item.item_id for item in limited] == ["alpaca-eval-000", "alpaca-eval-001"]


def test_where_the_instructions_are_from_is_recorded(
    config: Callable[..., GradeConfig], data: Path, tmp_path: Path
) -> None:
    path = data / "alpaca_eval" / "reference_text_davinci_003.json"
    origin = {"path": str(path), "sha256": file_digest(path)}
    rule: Any = open_benchmark(NAME, config())
    assert rule.origin == origin
    hard = tmp_path / "hard.csv"
    hard.write_text("instruction,difficulty\n")
    rule = open_benchmark(NAME, config(difficulties=hard))
    used = {"path": str(hard), "sha256": file_digest(hard)}
    assert rule.origin == {**origin, "difficulties": used}


def test_without_a_local_copy_the_file_is_read_from_the_hub_at_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    def dataset_info(_: object, repo_id: str, *, revision: str) -> SimpleNamespace:
        assert (repo_id, revision) == ("tatsu-lab/alpaca_eval", "v1")
        return SimpleNamespace(sha=COMMIT)

    def download(repo_id: str, filename: str, *, repo_type: str, revision: str) -> str:
        assert (repo_id, repo_type, revision) == ("tatsu-lab/alpaca_eval", "dataset", COMMIT)
        path = tmp_path / filename
        path.write_text(json.dumps(ROWS))
        return str(path)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    rule: Any = open_benchmark(NAME, GradeConfig(revisions={NAME: "v1"}))
    assert len(rule.items()) == 3
    assert rule.origin == {
        "hub_id": "tatsu-lab/alpaca_eval",
        "commit": COMMIT,
        "file": "alpaca_eval.json",
    }


def test_a_hub_without_the_file_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    def dataset_info(_: object, repo_id: str, *, revision: str) -> SimpleNamespace:
        return SimpleNamespace(sha=COMMIT)

    def download(*_: object, **__: object) -> str:
        raise EntryNotFoundError("404\nno such entry")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(DataError, match=r"alpaca_eval\.json cannot be loaded.*404 no") as caught:
        open_benchmark(NAME).items()
    assert "grade.paths.alpaca-eval=FILE" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_with_a_judge_a_reference_is_asked_for_before_anything_is_answered(
    config: Callable[..., GradeConfig],
) -> None:
    with pytest.raises(ConfigError, match=r"grade\.reference=NAME") as caught:
        open_benchmark(NAME, config(reference=None))
    assert "\n" not in str(caught.value)


def test_without_a_judge_the_items_need_no_reference_but_comparing_does(
    data: Path, completion: Make
) -> None:
    rule: Any = open_benchmark(NAME, GradeConfig(data=data))
    item = rule.items()[0]
    with pytest.raises(ConfigError, match=r"grade\.reference=NAME"):
        rule.questions(item, completion(item, "A plum."))


def test_answers_are_graded_against_the_reference(
    config: Callable[..., GradeConfig], completion: Make, answer_wins: AskJudge, tmp_path: Path
) -> None:
    items = open_benchmark(NAME, config()).items()
    answers = ["A ripe plum.", "Hello.", "One, and two."]
    completions, out = tmp_path / "completions.jsonl", tmp_path / "grade" / "scores.jsonl"
    write_jsonl(completions, map(completion, items, answers))
    grade(NAME, completions, out, config(), answer_wins)
    won = {s.item_id: s.value for s in read_jsonl(out, Score) if s.metric == "win_rate"}
    assert won == {"alpaca-eval-000": 1, "alpaca-eval-001": 0.5, "alpaca-eval-002": 1}
    (total,) = read_json(out.with_name("scores.totals.json"))["totals"]
    assert total["metric"] == "length_controlled_win_rate"
    assert 0.5 <= total["low"] <= total["value"] <= total["high"] <= 1
    assert total["n"] == 3


def test_another_variants_completions_can_be_the_reference(
    config: Callable[..., GradeConfig], completion: Make, tmp_path: Path
) -> None:
    items = open_benchmark(NAME, config()).items()
    path = tmp_path / "it.jsonl"
    write_jsonl(path, [completion(item, "Hm.") for item in items])
    rule: Any = open_benchmark(NAME, config(reference=str(path)))
    (question, _) = rule.questions(items[0], completion(items[0], "A plum."))
    assert "\nHm.\n" in question.prompt[0].content
    write_jsonl(path, [completion(item, "Hm.") for item in items[1:]])
    rule = open_benchmark(NAME, config(reference=str(path)))
    with pytest.raises(DataError, match=r"it\.jsonl: no answer to item alpaca-eval-000"):
        rule.questions(items[0], completion(items[0], "A plum."))


def test_difficulties_enter_the_total_and_a_missing_one_is_named(
    config: Callable[..., GradeConfig], completion: Make, tmp_path: Path
) -> None:
    hard = tmp_path / "hard.json"
    known = [{"instruction": row["instruction"], "difficulty": 1.5} for row in ROWS]
    hard.write_text(json.dumps(known))
    rule: Any = open_benchmark(NAME, config(difficulties=hard))
    item = rule.items()[1]
    (total,) = rule.totals([*rule.judged(item, completion(item, "Hello."), [])])
    assert "with instruction difficulty" in total.note
    hard.write_text(json.dumps(known[:2]))
    rule = open_benchmark(NAME, config(difficulties=hard))
    with pytest.raises(DataError, match=r"hard\.json: no difficulty .* item alpaca-eval-002"):
        rule.questions(item, completion(item, "Hi."))


def test_the_published_instructions_are_805_in_five_groups(public_data: Path) -> None:
    items = open_benchmark(NAME, GradeConfig(data=public_data)).items()
    assert len({item.item_id for item in items}) == 805
    assert {item.group for item in items} == {
        "helpful_base",
        "koala",
        "oasst",
        "selfinstruct",
        "vicuna",
    }


def test_published_outputs_answer_every_item(public_data: Path, completion: Make) -> None:
    reference = public_data / "alpaca_eval" / "reference_gpt4_1106_preview.json"
    rule: Any = open_benchmark(NAME, GradeConfig(data=public_data, reference=str(reference)))
    last = rule.items()[-1]
    lengths = {s.metric: s.value for s in rule.judged(last, completion(last, "x"), [])}
    assert lengths["reference_length"] == len(json.loads(reference.read_text())[-1]["output"])
