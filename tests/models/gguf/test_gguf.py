import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from response_tuning.models import gguf
from response_tuning.models.location import identity
from tests.fixtures.gguf_files import write_gguf


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps({"response": f"It is {i}."}) + "\n" for i in range(8)))
    return path


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"prompt": "What is it?"}) + "\n")
    return path


def tuning(base: Path, answers: Path, out: Path) -> list[object]:
    flags: list[object] = ["finetune", "--base-model", base, "--data", answers, "--out", out]
    return [*flags, "--max-steps", 2, "--examples-per-step", 4, "--window", 64]


def answer(rtune: Callable[..., Any], prompts: Path, model: Path, out: Path, *flags: str) -> Any:
    done = rtune("generate", prompts, "--model", model, "--out", out, "--max-new-tokens", 8, *flags)
    assert done.code == 0, done.err
    return json.loads(out.read_text())


def test_an_adapter_names_the_file_and_loads_over_it_again(
    rtune: Callable[..., Any],
    gguf_file: Path,
    gguf_cache: Path,
    answers: Path,
    prompts: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "tuned"
    done = rtune(*tuning(gguf_file, answers, out))
    assert done.code == 0, done.err
    sha = hashlib.sha256(gguf_file.read_bytes()).hexdigest()
    assert json.loads((out / "manifest.json").read_text())["base"] == f"gguf@{sha}"
    settings = json.loads((out / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(gguf_file)
    before = answer(rtune, prompts, out, tmp_path / "before.jsonl")
    assert before["model"] == identity(str(out)) and before["model"].endswith(f"+gguf@{sha}")
    shutil.rmtree(gguf_cache)  # it is made again from the file
    assert answer(rtune, prompts, out, tmp_path / "after.jsonl") == before


def test_another_file_under_an_adapter_is_refused(
    rtune: Callable[..., Any],
    gguf_file: Path,
    llama: Path,
    answers: Path,
    prompts: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "tuned"
    assert rtune(*tuning(gguf_file, answers, out)).code == 0
    gguf_file.unlink()
    write_gguf(gguf_file, llama, kind="Q8_0")
    done = rtune("generate", prompts, "--model", out, "--out", tmp_path / "x.jsonl")
    assert done.code == 2
    assert "changed after tuning (it was gguf@" in done.err


def test_an_untuned_file_answers_and_says_what_it_is(
    rtune: Callable[..., Any], gguf_file: Path, llama: Path, prompts: Path, tmp_path: Path
) -> None:
    flags = ["--template", "tulu"]
    ours = answer(rtune, prompts, gguf_file, tmp_path / "a.jsonl", *flags)
    theirs = answer(rtune, prompts, llama, tmp_path / "b.jsonl", *flags)
    assert ours["response"] == theirs["response"]
    assert ours["model"] != theirs["model"]


def test_a_chat_template_inside_is_a_warning(
    rtune: Callable[..., Any],
    llama: Path,
    gguf_cache: Path,
    answers: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    template = "{{ messages[0]['content'] }}<|endoftext|>"
    settings = {"tokenizer.chat_template": template}
    file = write_gguf(tmp_path / "chat.gguf", llama, settings=settings)
    done = rtune("show", answers, "--base-model", file)
    assert done.code == 0, done.err
    assert f"{file} already ships a chat template, so it may be tuned already" in caplog.text
    assert f"{file}: a GGUF file; its weights (F32) are used dequantised" in caplog.text


@pytest.mark.parametrize("command", ["show", "finetune", "generate", "probe"])
def test_every_command_explains_a_bad_file_before_it_writes(
    command: str, rtune: Callable[..., Any], answers: Path, prompts: Path, tmp_path: Path
) -> None:
    bad, out = tmp_path / "bad.gguf", tmp_path / "out"
    bad.write_bytes(b"not a model")
    arguments = {
        "show": ["show", answers, "--base-model", bad],
        "finetune": tuning(bad, answers, out),
        "generate": ["generate", prompts, "--model", bad, "--out", out, "--template", "tulu"],
        "probe": ["probe", bad, "miniature"],
    }[command]
    done = rtune(*arguments)
    assert done.code == 2
    assert done.err.strip() == f"rtune: {bad}: not a GGUF file: it does not begin with 'GGUF'"
    assert not out.exists()


def test_a_run_of_a_recipe_refuses_a_bad_file_before_its_first_cell(
    rtune: Callable[..., Any], llama: Path, gguf_cache: Path, answers: Path, tmp_path: Path
) -> None:
    bad = write_gguf(tmp_path / "odd.gguf", llama, settings={"general.architecture": "rwkv9"})
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"data: {{source: {answers}}}\nfinetune: {{base_model: {bad}}}\n"
        "benchmarks: [miniature-seen]\nvariants: {rt: {}}\n"
    )
    done = rtune("run", recipe, "--out", tmp_path / "run")
    assert done.code == 2
    assert "cannot read the architecture 'rwkv9' from a GGUF file" in done.err
    assert not [*(tmp_path / "run").glob("*/seed-1/*")]


def test_a_file_has_no_revision(
    rtune: Callable[..., Any], gguf_file: Path, answers: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tuned"
    done = rtune(*tuning(gguf_file, answers, out), "--set", "finetune.base_revision=v1")
    assert done.code == 2
    assert f"base_revision: {gguf_file} is a file, which has none" in done.err


def test_other_files_are_no_gguf_files(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("GG")
    assert not gguf.is_gguf(file)
    assert not gguf.is_gguf(tmp_path / "none.gguf")


def test_a_merged_model_needs_the_file_no_more(
    rtune: Callable[..., Any],
    gguf_file: Path,
    gguf_cache: Path,
    answers: Path,
    prompts: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "tuned"
    done = rtune(*tuning(gguf_file, answers, out), "--merge")
    assert done.code == 0, done.err
    shutil.rmtree(gguf_cache)
    gguf_file.unlink()
    assert answer(rtune, prompts, out, tmp_path / "a.jsonl")["error"] is None


def test_a_run_of_a_recipe_tunes_and_asks_a_file(
    rtune: Callable[..., Any], gguf_file: Path, prompts: Path, answers: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"data: {{source: {answers}}}\n"
        f"finetune: {{base_model: {gguf_file}, max_steps: 1, window: 64}}\n"
        f"generate: {{max_new_tokens: 4}}\nbenchmarks: [prompts]\n"
        f"grade: {{paths: {{prompts: {prompts}}}}}\n"
        "variants: {base: {finetune: null}, rt: {}}\n"
    )
    done = rtune("run", recipe, "--out", tmp_path / "run")
    assert done.code == 0, done.err
    sha = hashlib.sha256(gguf_file.read_bytes()).hexdigest()
    models = [
        json.loads(
            next((tmp_path / "run").glob(f"{name}/seed-0/generate/prompts.jsonl")).read_text()
        )
        for name in ("base", "rt")
    ]
    assert models[0]["model"] == f"gguf@{sha}"
    assert models[1]["model"].endswith(f"+gguf@{sha}")
    table = (tmp_path / "run" / "report" / "results.csv").read_text()
    assert "rt,prompts,stopped," in table
    assert "What is it?" in (tmp_path / "run" / "report" / "report.html").read_text()
