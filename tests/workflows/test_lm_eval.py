import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from transformers import AutoModelForCausalLM

from response_tuning.artifacts import Score, read_json, read_jsonl
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError, DataError, ModelError
from response_tuning.generate import EngineConfig
from response_tuning.grade import suites
from response_tuning.workflows import lm_eval
from response_tuning.workflows.lm_eval import run_core

CORE = suites()["core"]
COLOURS = {"text": ["red", "green", "blue"], "label": ["A", "B", "C"]}
ARC = [
    {"id": str(n), "question": f"Colour {n}?", "choices": COLOURS, "answerKey": "ABC"[n % 3]}
    for n in range(6)
]
ROWS: dict[str, list[dict[str, Any]]] = {
    "arc/arc_easy_validation.jsonl": ARC,
    "arc/arc_challenge_validation.jsonl": ARC[:2],
    "gsm8k/test.jsonl": [{"question": "What is 2 and 2?", "answer": "It is 4.\n#### 4"}],
    "hellaswag/hellaswag_val_subset_half.jsonl": [
        {"query": "A man stirs. He", "choices": ["eats", "sleeps"], "gold": 0}
    ],
    "mmlu/test_half.jsonl": [
        {"subject": "anatomy", "question": "Legs?", "choices": [*"2456"], "answer": 0},
        {"subject": "virology", "question": "Viruses?", "choices": [*"1234"], "answer": 3},
    ],
    "openbookqa/openbookqa_validation.jsonl": [
        {"id": "o", "question_stem": "Grass is", "choices": COLOURS, "answerKey": "B"}
    ],
    "piqa/piqa_validation_half.jsonl": [
        {"goal": "Cut bread.", "sol1": "Use a knife.", "sol2": "Use a cup.", "label": 0}
    ],
}

METRICS = {"core-mmlu": {"acc"}, "core-gsm8k": {"exact_match_strict", "exact_match_flexible"}}


@pytest.fixture
def config(tmp_path: Path) -> GradeConfig:
    for name, rows in ROWS.items():
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return GradeConfig(data=tmp_path / "data")


@pytest.fixture(scope="module")
def roomy(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tests' own model, in whose context eight examples find room."""
    folder = tmp_path_factory.mktemp("roomy")
    model = AutoModelForCausalLM.from_pretrained(tiny_base, max_position_embeddings=8192)
    model.save_pretrained(folder)
    for file in tiny_base.glob("tokenizer*"):
        (folder / file.name).write_bytes(file.read_bytes())
    return str(folder)


@pytest.fixture
def run(tmp_path: Path, config: GradeConfig) -> Callable[..., str]:
    """Run core benchmarks into ``tmp_path/cell``; what was said."""

    def go(model: str, *benchmarks: str, chat: bool = False, **change: Any) -> str:
        said = io.StringIO()
        settings = EngineConfig(model=model, template="tulu" if chat else None, device="cpu")
        now = config.model_copy(update=change)
        console = Console(file=said, width=200)
        run_core(settings, benchmarks, now, tmp_path / "cell", console, chat=chat)
        return said.getvalue()

    return go


def found(tmp_path: Path, benchmark: str) -> list[Score]:
    return list(read_jsonl(tmp_path / "cell" / "grade" / f"{benchmark}.jsonl", Score))


def manifest(tmp_path: Path, benchmark: str) -> dict[str, Any]:
    part: dict[str, Any] = read_json(tmp_path / "cell" / "grade" / "manifest.json")[benchmark]
    return part


@pytest.mark.parametrize("chat", [False, True])
def test_every_benchmark_leaves_a_score_for_each_item_and_metric(
    run: Callable[..., str], roomy: str, tmp_path: Path, chat: bool
) -> None:
    run(roomy, *CORE, chat=chat)
    items = {"core-arc": 8, "core-mmlu": 2}
    for name in CORE:
        scores = found(tmp_path, name)
        metrics = {
            "core-mmlu": {"acc"},
            "core-gsm8k": {"exact_match_strict", "exact_match_flexible"},
        }
        assert {s.metric for s in scores} == metrics.get(name, {"acc", "acc_norm"})
        assert len({s.item_id for s in scores}) == items.get(name, 1)
        assert len({(s.item_id, s.metric) for s in scores}) == len(scores)
        part = manifest(tmp_path, name)
        assert part["items"] == items.get(name, 1)
        assert part["few_shot"] == (8 if name == "core-gsm8k" else 0)
        assert part["metrics"].keys() == {s.metric for s in scores}
        assert (part["template"] is not None) == chat
        assert part["requests_cut"] == 0
        assert all("sha256" in origin for origin in part["data"].values())
    place = "in the system message" if chat else None
    assert manifest(tmp_path, "core-mmlu").get("description") == place


def test_the_template_changes_what_is_asked_and_not_which_items(
    run: Callable[..., str], roomy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval import evaluator

    asked: list[tuple[str, str]] = []
    evaluate = evaluator.evaluate

    def heard(*arguments: Any, **settings: Any) -> Any:
        result = evaluate(*arguments, **settings)
        asked.append(result["samples"]["piqa"][0]["arguments"][0])
        return result

    monkeypatch.setattr(evaluator, "evaluate", heard)
    run(roomy, "core-piqa")
    plain = [score.item_id for score in found(tmp_path, "core-piqa")]
    run(roomy, "core-piqa", chat=True)
    assert [score.item_id for score in found(tmp_path, "core-piqa")] == plain
    question = "Question: Cut bread.\nAnswer:"
    assert asked == [
        (question, " Use a knife."),
        (f"<s><|user|>\n{question}\n<|assistant|>\n", "Use a knife."),
    ]


def test_the_embedded_base_is_measured(run: Callable[..., str], tmp_path: Path) -> None:
    said = run("miniature", "core-arc", "core-hellaswag")
    assert said.splitlines()[0].startswith("core-arc: acc 0.")
    assert "(n 8)" in said
    assert len(found(tmp_path, "core-arc")) == 2 * 8


def test_what_is_there_is_not_asked_again_and_what_has_changed_is(
    run: Callable[..., str], roomy: str, tmp_path: Path, config: GradeConfig
) -> None:
    assert "already complete" not in run(roomy, "core-piqa")
    before = (tmp_path / "cell" / "grade" / "core-piqa.jsonl").read_bytes()
    assert run(roomy, "core-piqa").strip() == "core capabilities: already complete"
    assert "core-piqa" in run(roomy, "core-piqa", chat=True)
    assert "core-piqa" in run(roomy, "core-piqa")
    assert (tmp_path / "cell" / "grade" / "core-piqa.jsonl").read_bytes() == before
    assert config.data is not None
    (copy,) = (config.data / "piqa").iterdir()
    copy.write_text(copy.read_text() * 2)
    assert "(n 2)" in run(roomy, "core-piqa")
    (tmp_path / "cell" / "grade" / "core-piqa.jsonl").unlink()
    assert "(n 2)" in run(roomy, "core-piqa")


def test_what_others_noted_in_the_manifest_stays(
    run: Callable[..., str], roomy: str, tmp_path: Path
) -> None:
    (tmp_path / "cell" / "grade").mkdir(parents=True)
    (tmp_path / "cell" / "grade" / "manifest.json").write_text('{"ifeval": {"rules": "1"}}')
    run(roomy, "core-piqa")
    assert manifest(tmp_path, "ifeval") == {"rules": "1"}


def test_a_limit_is_of_the_whole_benchmark(
    run: Callable[..., str], roomy: str, tmp_path: Path
) -> None:
    run(roomy, "core-arc", limit=4)
    by_task = {
        task: [score.weight for score in found(tmp_path, "core-arc") if score.group == task]
        for task in ("arc_easy", "arc_challenge")
    }
    assert by_task == {"arc_easy": [1 / 3] * 6, "arc_challenge": [1.0] * 2}


def test_prompts_that_are_cut_are_counted_and_told(
    run: Callable[..., str], config: GradeConfig, tmp_path: Path
) -> None:
    assert config.data is not None
    row = ROWS["openbookqa/openbookqa_validation.jsonl"][0] | {"question_stem": "Grass is " * 200}
    (config.data / "openbookqa" / "openbookqa_validation.jsonl").write_text(json.dumps(row))
    assert "3 requests lost their beginning" in run("miniature", "core-openbookqa")
    assert manifest(tmp_path, "core-openbookqa")["requests_cut"] == 3


def test_nothing_but_our_lines_is_said(
    run: Callable[..., str], roomy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = run(roomy, "core-gsm8k", "core-piqa")
    assert [line.partition(":")[0] for line in said.splitlines()] == ["core-gsm8k", "core-piqa"]
    assert capsys.readouterr() == ("", "")


def test_a_context_too_short_for_answers_is_one_line(run: Callable[..., str]) -> None:
    with pytest.raises(ModelError, match="an answer may have 256 tokens"):
        run("miniature", "core-gsm8k")


def test_an_unknown_benchmark_is_refused(run: Callable[..., str]) -> None:
    with pytest.raises(ConfigError, match="unknown benchmark 'core-arx': did you mean 'core-arc'"):
        run("miniature", "core-arx")
    with pytest.raises(ConfigError, match="xstest: not a benchmark of lm-eval"):
        run("miniature", "xstest")


def test_data_that_are_nowhere_are_told_before_the_model_is_loaded(
    run: Callable[..., str], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"piqa_validation_half\.jsonl: no such file"):
        run("no-such-model", "core-piqa", data=tmp_path)


def test_without_lm_eval_one_line_says_what_to_install(
    run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lm_eval, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'response-tuning\[lm-eval\]'"):
        run("miniature", "core-arc")


def test_a_run_without_core_benchmarks_needs_no_lm_eval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_eval, "find_spec", lambda name: None)
    lm_eval.check_core([])
    with pytest.raises(ConfigError, match="pip install"):
        lm_eval.check_core(["core-arc"])


def test_the_public_copies_are_asked_of_a_real_model(
    run: Callable[..., str], tiny_lm: Path, tmp_path: Path, public_data: Path
) -> None:
    said = run(str(tiny_lm), *CORE, chat=True, data=public_data, limit=4)
    assert said.count("(n 4)") == 6
    assert manifest(tmp_path, "core-gsm8k")["requests_cut"] == 4
