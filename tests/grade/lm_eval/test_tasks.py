import json
from collections import Counter
from pathlib import Path
from typing import Any

import lm_eval.tasks
import pytest
from datasets import Dataset

from response_tuning.artifacts import file_digest
from response_tuning.configs import GradeConfig
from response_tuning.errors import DataError
from response_tuning.grade import LmEvalBenchmark, open_lm_eval, planned_prompts, suites
from response_tuning.grade.lm_eval.tasks import (
    METRIC_MEANINGS,
    chosen,
    load_tasks,
    read_data,
    scores,
)
from response_tuning.grade.sources import SourceRows
from response_tuning.readers import Row

CORE = suites()["core"]
CHOICES = {"text": ["red", "green", "blue"], "label": ["A", "B", "C"]}
ROWS: dict[str, list[dict[str, Any]]] = {
    "arc/arc_easy_validation.jsonl": [
        {
            "id": "e1",
            "question": "Which colour has grass?",
            "choices": CHOICES,
            "answerKey": "B",
        }
    ],
    "arc/arc_challenge_validation.jsonl": [
        {"id": "c1", "question": "Which colour has the sky?", "choices": CHOICES, "answerKey": "C"},
        {
            "id": "c2",
            "question": "Which colour has fire?",
            "choices": CHOICES,
            "answerKey": "A",
        },
    ],
    "gsm8k/test.jsonl": [{"question": "What is 2 and 2?", "answer": "It is 4.\n#### 4"}],
    "hellaswag/hellaswag_val_subset_half.jsonl": [
        {"query": "Cooking: A man stirs. He", "choices": ["eats", "sleeps"], "gold": 0}
    ],
    "mmlu/test_half.jsonl": [
        {"subject": "anatomy", "question": "Legs? ", "choices": [*"2456"], "answer": 0},
        {"subject": "virology", "question": "Viruses?", "choices": [*"1234"], "answer": 3},
        {"subject": "anatomy", "question": "Arms?", "choices": [*"1234"], "answer": 1},
    ],
    "openbookqa/openbookqa_validation.jsonl": [
        {"id": "o1", "question_stem": "Grass is", "choices": CHOICES, "answerKey": "B"}
    ],
    "piqa/piqa_validation_half.jsonl": [
        {"goal": "Cut bread.", "sol1": "Use a knife.", "sol2": "Use a cup.", "label": 0}
    ],
}
PROMPTS = {
    "arc_easy": "Question: Which colour has grass?\nAnswer:",
    "arc_challenge": "Question: Which colour has the sky?\nAnswer:",
    "hellaswag": "Cooking: A man stirs. He",
    "mmlu_anatomy": (
        "The following are multiple choice questions (with answers) about anatomy.\n\n"
        "Legs?\nA. 2\nB. 4\nC. 5\nD. 6\nAnswer:"
    ),
    "mmlu_virology": (
        "The following are multiple choice questions (with answers) about virology.\n\n"
        "Viruses?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"
    ),
    "openbookqa": "Grass is",
    "piqa": "Question: Cut bread.\nAnswer:",
}
TARGETS = {
    "arc_easy": 1,
    "arc_challenge": 2,
    "gsm8k_cot_llama": 4,
    "hellaswag": 0,
    "mmlu_anatomy": 0,
    "mmlu_virology": 3,
    "openbookqa": 1,
    "piqa": 0,
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with a handful of rows for each benchmark."""
    for name, rows in ROWS.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path


def benchmark(name: str) -> LmEvalBenchmark:
    found = open_lm_eval(name)
    assert found is not None
    return found


def loaded(name: str, **config: Any) -> dict[str, Any]:
    return load_tasks(benchmark(name), read_data(benchmark(name), GradeConfig(**config)))


def on_the_hub(path: str, subset: str | None) -> list[dict[str, Any]]:
    """The rows that a dataset of the hub would have, were it as small as the local ones."""
    if path == "Rowan/hellaswag":
        raw = {"activity_label": "Cooking", "ctx_a": "A man [step] stirs.", "ctx_b": "he"}
        return [raw | {"endings": ["eats", "[bread]sleeps"], "label": "0"}]
    if path == "cais/mmlu":
        return [row for row in ROWS["mmlu/test_half.jsonl"] if row["subject"] == subset]
    of = {
        ("allenai/ai2_arc", "ARC-Easy"): "arc/arc_easy_validation.jsonl",
        ("allenai/ai2_arc", "ARC-Challenge"): "arc/arc_challenge_validation.jsonl",
        ("openai/gsm8k", "main"): "gsm8k/test.jsonl",
        ("allenai/openbookqa", "main"): "openbookqa/openbookqa_validation.jsonl",
        ("baber/piqa", None): "piqa/piqa_validation_half.jsonl",
    }
    return ROWS[of[path, subset]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub whose datasets have a handful of rows at the commit ``c0ffee``."""

    def load(path: str, name: str | None, revision: str) -> dict[str, Dataset]:
        assert revision == "c0ffee"
        rows = on_the_hub(path, name) or [{"question": "?", "choices": [*"abcd"], "answer": 0}]
        return dict.fromkeys(("train", "dev", "validation", "test"), Dataset.from_list(rows))

    monkeypatch.setattr("response_tuning.hub.resolve", lambda hub_id, revision, benchmark: "c0ffee")
    monkeypatch.setattr("lm_eval.api.task.datasets.load_dataset", load)


def test_planned_prompts_are_counted_in_local_copies_and_are_else_the_published_ones(
    data: Path,
) -> None:
    arc = benchmark("core-arc")
    copied = sum(len(ROWS[f"arc/arc_{part}_validation.jsonl"]) for part in ("easy", "challenge"))
    assert planned_prompts(arc, GradeConfig(data=data)) == (copied, True)
    assert planned_prompts(arc, GradeConfig()) == (2376 + 1172, False)
    assert planned_prompts(arc, GradeConfig(limit=100)) == (100, False)
    own = LmEvalBenchmark("quiz", "own", "quiz", sources={}, columns=())
    assert planned_prompts(own, GradeConfig(limit=100)) == (None, False)


def asked(task: Any) -> list[Any]:
    """What a task asks about its first document, how, and what it wants to hear."""
    doc = task.task_docs[0]
    config = task.config
    plain, chat = (
        task.fewshot_context(
            doc,
            num_fewshot=config.num_fewshot or 0,
            apply_chat_template=template is not None,
            fewshot_as_multiturn=template is not None,
            chat_template=template,
        )
        for template in (None, lambda messages, **_: json.dumps(messages))
    )
    choices = task.doc_to_choice(doc) if config.doc_to_choice else None
    how = [config.output_type, config.metric_list, config.filter_list, config.generation_kwargs]
    return [plain, chat, choices, int(task.doc_to_target(doc)), *how]


@pytest.mark.parametrize("name", CORE)
def test_a_local_copy_is_asked_as_lm_eval_asks_the_hub(name: str, data: Path, hub: None) -> None:
    local, there = loaded(name, data=data), loaded(name)
    assert len(there) == {"core-mmlu": 57, "core-arc": 2}.get(name, 1)
    assert local.keys() <= there.keys()
    for task in local:
        assert asked(local[task]) == asked(there[task])


@pytest.mark.parametrize("name", CORE)
def test_the_first_prompt_and_its_answer_are_as_written_here(name: str, data: Path) -> None:
    for task, one in loaded(name, data=data).items():
        prompt, _, _, target, *_ = asked(one)
        assert target == TARGETS[task]
        if task in PROMPTS:
            assert prompt == PROMPTS[task]


def test_gsm8k_has_eight_examples_as_turns_of_a_conversation(data: Path) -> None:
    (task,) = loaded("core-gsm8k", data=data).values()
    plain, chat, *_ = asked(task)
    turns = json.loads(chat)
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 8 + ["user"]
    assert turns[1]["content"].endswith("The final answer is 6")
    assert "What is 2 and 2?" in turns[-1]["content"]
    assert plain.count("Your response should end with") == 9


def test_where_the_data_are_from_is_recorded(data: Path, hub: None) -> None:
    path = data / "piqa" / "piqa_validation_half.jsonl"
    (local,) = read_data(benchmark("core-piqa"), GradeConfig(data=data)).values()
    assert local.origin == {"path": str(path), "sha256": file_digest(path)}
    (there,) = read_data(benchmark("core-piqa"), GradeConfig()).values()
    assert there.origin == {"hub_id": "baber/piqa", "commit": "c0ffee", "split": "validation"}


def test_the_hub_ids_are_those_of_lm_eval() -> None:
    for core in map(benchmark, CORE):
        folder = Path(lm_eval.tasks.__file__).parent / core.folder
        manager = lm_eval.tasks.TaskManager(include_path=str(folder), include_defaults=False)
        for task, source in core.sources.items():
            name = "mmlu_anatomy" if task == "mmlu" else task
            assert manager.task_index[name].cfg["dataset_path"] == source.hub_id
            splits = [
                manager.task_index[name].cfg.get(f"{s}_split") for s in ("test", "validation")
            ]
            assert source.split == next(filter(None, splits))


def test_only_subjects_with_rows_are_asked(data: Path) -> None:
    tasks = loaded("core-mmlu", data=data)
    sizes = {task: len(one.task_docs) for task, one in tasks.items()}
    assert sizes == {"mmlu_anatomy": 2, "mmlu_virology": 1}


def test_a_subject_that_mmlu_has_not_is_refused(data: Path) -> None:
    row = {"subject": "magic", "question": "?", "choices": [*"abcd"], "answer": 0}
    (data / "mmlu" / "test_half.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match=r"test_half\.jsonl:1: MMLU has no subject 'magic'"):
        loaded("core-mmlu", data=data)


@pytest.mark.parametrize("name", CORE)
def test_a_row_without_its_columns_is_refused_with_its_line(name: str, data: Path) -> None:
    for source in benchmark(name).sources.values():
        (data / source.local).write_text('{"text": "x"}\n')
    with pytest.raises(DataError, match=r"\.jsonl:1: expected the columns .*, found"):
        read_data(benchmark(name), GradeConfig(data=data))


def test_a_copy_elsewhere_is_named_by_its_file_or_its_folder(data: Path) -> None:
    paths = {"core-piqa": data / "piqa" / "piqa_validation_half.jsonl", "core-arc": data / "arc"}
    assert len(loaded("core-piqa", paths=paths)) == 1
    assert len(loaded("core-arc", paths=paths)) == 2


def test_one_file_is_no_copy_of_two(data: Path) -> None:
    paths = {"core-arc": data / "arc" / "arc_easy_validation.jsonl"}
    with pytest.raises(DataError, match=r"expected the folder that holds arc_easy_validation"):
        read_data(benchmark("core-arc"), GradeConfig(paths=paths))


def test_without_a_copy_and_a_network_one_line_says_so() -> None:
    with pytest.raises(DataError, match="allenai/ai2_arc: cannot be loaded from the hub"):
        read_data(benchmark("core-arc"), GradeConfig())


def test_a_limit_is_spread_over_the_tasks_of_a_benchmark(data: Path) -> None:
    tasks = loaded("core-mmlu", data=data)
    assert chosen(tasks, None) == {"mmlu_anatomy": [0, 1], "mmlu_virology": [0]}
    assert chosen(tasks, 2) == {"mmlu_anatomy": [0, 1]}
    assert chosen(loaded("core-arc", data=data), 2) == {"arc_easy": [0], "arc_challenge": [0]}


def sample(place: int, found: float, filtered: object, **more: object) -> dict[str, Any]:
    logged = {"doc_id": place, "doc_hash": f"{place:064}", "target": 1, "filter": "none"}
    return {**logged, "filtered_resps": [filtered], "metrics": ["acc"], "acc": found, **more}


def test_every_task_of_arc_counts_the_same() -> None:
    choice = (-1.0, False)
    easy = [sample(place, 1.0, choice) for place in range(3)]
    found = list(
        scores(benchmark("core-arc"), {"arc_easy": easy, "arc_challenge": [sample(0, 0.0, choice)]})
    )
    assert [score.group for score in found] == ["arc_easy"] * 3 + ["arc_challenge"]
    weighted = sum(score.value * score.weight for score in found)
    assert weighted / sum(score.weight for score in found) == pytest.approx(0.5)


def test_every_item_of_mmlu_counts_the_same() -> None:
    anatomy = [sample(0, 1.0, (-1.0, False)), sample(1, 0.0, (-1.0, False))]
    found = list(scores(benchmark("core-mmlu"), {"mmlu_anatomy": anatomy}))
    assert {(score.group, score.weight, score.explanation) for score in found} == {
        ("anatomy", 1.0, "expected B")
    }
    assert found[0].item_id == "mmlu_anatomy-0-000000000000"


def test_the_two_ways_to_read_a_number_are_two_metrics() -> None:
    logged = [
        sample(0, 0, "[invalid]", filter="strict-match", metrics=["exact_match"], exact_match=0),
        sample(0, 0, "18", filter="flexible-extract", metrics=["exact_match"], exact_match=1),
    ]
    strict, flexible = scores(benchmark("core-gsm8k"), {"gsm8k_cot_llama": logged})
    assert (strict.metric, strict.value) == ("exact_match_strict", 0)
    assert strict.explanation == "read '[invalid]', expected 1"
    assert (flexible.metric, flexible.value, flexible.group) == ("exact_match_flexible", 1, "")
    assert {strict.metric, flexible.metric} < METRIC_MEANINGS.keys()


def test_the_public_copies_are_read(public_data: Path) -> None:
    items = {
        name: sum(map(len, chosen(loaded(name, data=public_data), None).values())) for name in CORE
    }
    assert items == {
        "core-arc": 869,
        "core-gsm8k": 1319,
        "core-hellaswag": 500,
        "core-mmlu": 7010,
        "core-openbookqa": 500,
        "core-piqa": 919,
    }


def test_the_numbers_in_stored_solutions_are_judged_as_their_authors_did(
    public_data: Path,
) -> None:
    text = (public_data / "gsm8k" / "example_model_solutions_half.jsonl").read_text("utf-8")
    stored = [json.loads(line) for line in text.split("\n")[:-1:7]]
    fields = [
        {"question": row["question"], "answer": row["ground_truth"].replace("\nA: ", "\n#### ")}
        for row in stored
    ]
    rows = SourceRows(tuple(Row("", one) for one in fields), {})
    (task,) = load_tasks(benchmark("core-gsm8k"), {"gsm8k_cot_llama": rows}).values()
    task.build_all_requests()
    agree: Counter[tuple[str, bool]] = Counter()
    for model in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
        for request, row in zip(task.instances, stored, strict=True):
            request.resps = [row[model]["solution"].replace("\nA: ", "\nThe final answer is ")]
        task.apply_filters()
        for request, row in zip(task.instances, stored, strict=True):
            for way, read in request.filtered_resps.items():
                right = bool(task.process_results(request.doc, [read])["exact_match"])
                agree[way, right == row[model]["is_correct"]] += 1
    assert agree == {("strict-match", True): 4 * 95, ("flexible-extract", True): 4 * 95}
