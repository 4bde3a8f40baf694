import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from response_tuning.grade import open_benchmark
from response_tuning.miniature.examples import act_questions
from response_tuning.miniature.families import refusal_forms
from response_tuning.workflows.cost import Cost

Run = Callable[..., Any]
BENCHMARK = "miniature-refusal-validation"


@pytest.fixture
def recipe(miniature_base: Path, tmp_path: Path) -> Path:
    path = tmp_path / "little.yaml"
    path.write_text(
        f"seeds: [0]\n"
        f"data: {{source: miniature, max_examples: 16}}\n"
        f"finetune: {{base_model: {miniature_base}, device: cpu, method: full, epochs: 1}}\n"
        f"generate: {{max_new_tokens: 4}}\n"
        f"benchmarks: [{BENCHMARK}]\n"
        f"variants: {{base: {{finetune: null}}, rt: {{finetune: {{window: 64}}}}}}\n"
        "report: {baselines: [base]}\n"
    )
    return path


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_run_goes_through_the_stages_and_ends_in_a_report(
    rtune: Run, recipe: Path, tmp_path: Path
) -> None:
    result = rtune("run", recipe)
    assert result.code == 0
    assert result.err == ""
    assert "[1/2] base, seed 0\n" in result.out
    assert "[2/2] rt, seed 0\n" in result.out
    out = Path("runs/little")
    assert f"report: {out / 'report' / 'report.html'}\n" in result.out
    assert "\x1b" not in result.out
    assert (tmp_path / out / "report" / "report.html").exists()
    again = rtune("run", recipe)
    assert again.code == 0
    assert again.out.count("answers: already complete") == 2
    assert "already finished, nothing to do" in again.out


def test_report_writes_the_report_of_a_run_again(rtune: Run, recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere"
    assert rtune("run", recipe, "--out", out).code == 0
    page = out / "report" / "report.html"
    before = page.read_bytes()
    page.unlink()
    result = rtune("report", out)
    assert result.code == 0
    assert str(page) in result.out
    assert page.read_bytes() == before


@pytest.mark.usefixtures("unmeasured")
def test_settings_on_the_command_line_are_laid_over_the_recipe(
    rtune: Run, recipe: Path, tmp_path: Path
) -> None:
    flags = ["--set", "seeds=[4]", "--set", "variants.rt.data.max_examples=8", "--dry-run"]
    out = rtune("run", recipe, *flags).out
    assert "rt: response-tuning (full) of " in out
    assert " on 8 of miniature\n" in out
    assert "seeds: 4\n" in out


@pytest.mark.usefixtures("unmeasured")
def test_all_cells_at_a_value_of_the_grid_can_be_named(rtune: Run, recipe: Path) -> None:
    grid = ["--set", "grid.doses=[0, 5]", "--set", "data.mixture.source=miniature-refusals"]
    out = rtune("run", recipe, *grid, "--only", "5", "--dry-run").out
    assert out.startswith("rt-5: response-tuning (full) of ")
    assert "\n1 cells: 1 to tune, " in out
    result = rtune("run", recipe, *grid, "--only", "7", "--dry-run")
    assert result.code == 2
    assert "unknown cell '7'" in result.err


def test_more_than_100_cells_have_to_be_confirmed(rtune: Run, recipe: Path, tmp_path: Path) -> None:
    many = ["--set", f"seeds={[*range(51)]}"]
    result = rtune("run", recipe, *many)
    assert result.code == 2
    assert "102 cells, more than 100: " in result.err
    assert "confirm their number with --cells 102" in result.err
    result = rtune("run", recipe, *many, "--cells", "100")
    assert result.code == 2
    assert "--cells 100: there are 102" in result.err
    # Confirmed, they run; here into a folder that is none.
    (tmp_path / "taken").write_text("")
    result = rtune("run", recipe, *many, "--cells", "102", "--out", "taken")
    assert "more than 100" not in result.err
    assert files(tmp_path) == [recipe.name, "taken"]


@pytest.mark.usefixtures("unmeasured")
def test_single_cells_can_be_named(rtune: Run, recipe: Path) -> None:
    seeds = ["--set", "seeds=[0, 1]", "--dry-run"]
    out = rtune("run", recipe, *seeds, "--only", "rt/seed-1", "--only", "base").out
    assert "seeds: 0, 1\n" in out
    assert "3 cells: 1 to tune, " in out
    result = rtune("run", recipe, *seeds, "--only", "rt/sed-1")
    assert result.code == 2
    assert "unknown cell 'rt/sed-1': did you mean 'rt/seed-1'" in result.err


@pytest.mark.parametrize("flags", [[], ["--out", "somewhere"]])
def test_a_dry_run_prints_the_plan_and_writes_nothing(
    rtune: Run, recipe: Path, tmp_path: Path, flags: list[str]
) -> None:
    result = rtune("run", recipe, "--dry-run", *flags)
    assert result.code == 0
    assert f"benchmarks: {BENCHMARK} (357 items)\n" in result.out
    assert "2 cells: 1 to tune, 714 answers\n" in result.out
    assert files(tmp_path) == [recipe.name]


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the costs out, which take seconds to measure."""
    monkeypatch.setattr("response_tuning.workflows.plan.cost_of", lambda *_: (Cost(), {}))


@pytest.mark.usefixtures("unmeasured")
def test_the_plan_of_the_demo_writes_nothing(rtune: Run, tmp_path: Path) -> None:
    result = rtune("demo", "--dry-run")
    assert result.code == 0
    lines = result.out.splitlines()
    assert lines[0] == "base: miniature, as it is"
    assert "rt: response-tuning (full) of miniature on 1,000 of miniature" in lines
    assert "39 cells: 26 to tune, 49,578 answers" in lines
    assert lines[-1] == "power counts prompts alone, not how much training varies (3 seeds)"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("unmeasured")
def test_the_demo_takes_settings_too(rtune: Run) -> None:
    result = rtune("demo", "--dry-run", "--set", "seeds=[0, 1]")
    assert "seeds: 0, 1\n" in result.out
    assert "30 cells: 20 to tune, 37,278 answers\n" in result.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "absent.yaml"], "absent.yaml: cannot be read"),
        (["run", "little.yaml", "--set", "variants"], "expected KEY=VALUE"),
        (["run", "little.yaml", "--set", "variants.rt.finetune.lora_rank=1"], "variant 'rt'"),
        (
            ["run", "little.yaml", "--set", "benchmarks=[miniature]"],
            "unknown benchmark 'miniature'",
        ),
        (["run", "little.yaml", "--set", "preset=papr"], "did you mean 'paper'"),
        (["run", "little.yaml", "--set", "variants.a/b={}"], "variant 'a/b'"),
        (["run", "little.yaml", "--set", "report.baselines=[it]"], "unknown baseline 'it'"),
        (["demo", "--set", "seed=1"], "--set: unknown key 'seed': did you mean 'seeds'?"),
        (["report", "absent"], "absent: no run there; give the folder of an 'rtune run'"),
        (
            ["grade", "miniature-sen", "c.jsonl", "--out", "s.jsonl"],
            "did you mean 'miniature-seen'",
        ),
        (["grade", BENCHMARK, "c.jsonl", "--out", "s.jsonl"], "c.jsonl: cannot be read"),
        (["miniature", "build", "--out", "b", "--tokens", "0"], "pretrain.tokens: "),
        (["miniature", "build", "--out", "b", "--tokens", "9"], "a step takes 4,096 tokens"),
        (["miniature", "build", "--out", "b", "--seed", "-1"], "pretrain.seed: "),
        (
            ["miniature", "build", "--out", "b", "--set", "tokens=9"],
            "did you mean 'pretrain.tokens'?",
        ),
        (
            ["miniature", "build", "--out", "b", "--set", "mixture.any=1"],
            "mixture: unknown key 'any'",
        ),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_leaves_nothing(
    rtune: Run, recipe: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    result = rtune(*arguments)
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert result.err.startswith("rtune: ")
    assert result.err.count("\n") == 1
    assert files(tmp_path) == [recipe.name]


def test_a_benchmark_is_answered_and_graded_by_name(rtune: Run, tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    with table.open("w") as out:
        for question in act_questions("unsafe", "validation"):
            line = {"prompt": question.text, "response": refusal_forms()[4]}
            out.write(json.dumps(line) + "\n")
        for question in act_questions("look-alike", "validation"):
            said = question.family.fill(question.family.answers[0], question.fact)
            out.write(json.dumps({"prompt": question.text, "response": said}) + "\n")
    answers, scores = tmp_path / "answers.jsonl", tmp_path / "grade" / "scores.jsonl"
    flags = ["--engine", "scripted", "--table", table, "--out", answers]
    assert "357 answers, 0 errors" in rtune("generate", BENCHMARK, *flags).out
    asked = [json.loads(line)["item_id"] for line in answers.read_text().splitlines()]
    assert asked == [item.item_id for item in open_benchmark(BENCHMARK).items()]
    result = rtune("grade", BENCHMARK, answers, "--out", scores)
    assert result.code == 0
    table_of_means = {
        line.split()[0]: line.split()[1:] for line in result.out.splitlines() if "(n " in line
    }
    assert table_of_means["refusal"] == ["1.000", "(n", "173)"]
    for metric, mean in (("strict", "1.000"), ("false_refusal", "0.000")):
        assert table_of_means[metric] == [mean, "(n", "184)"]
    assert table_of_means["stopped"] == ["1.000", "(n", "357)"]
    assert "tokens_mean" not in table_of_means, "the scripted engine counts no tokens"
    assert len(scores.read_text().splitlines()) == 7 * 357 + 173 + 3 * 184


def test_answers_with_an_error_are_not_graded(rtune: Run, tmp_path: Path) -> None:
    table, answers = tmp_path / "table.jsonl", tmp_path / "answers.jsonl"
    table.write_text('{"prompt": "Hi", "response": "Hello."}\n')
    flags = ["--engine", "scripted", "--table", table, "--out", answers]
    assert rtune("generate", BENCHMARK, *flags).code == 1
    result = rtune("grade", BENCHMARK, answers, "--out", tmp_path / "scores.jsonl")
    assert result.code == 2
    assert "answers.jsonl:1: item unsafe-000 has no answer" in result.err
    assert result.err.count("\n") == 1
    assert not (tmp_path / "scores.jsonl").exists()


def test_a_base_model_is_built_from_a_seed_and_can_answer(
    rtune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("response_tuning.miniature.build.TOKENIZER_DOCUMENTS", 100)
    monkeypatch.setattr("response_tuning.miniature.build.ENCODED_AT_ONCE", 100)
    small = ["hidden_size=32", "layers=1", "heads=2", "vocabulary=300", "context=64"]
    flags = [part for setting in small for part in ("--set", f"pretrain.{setting}")]
    build = ["miniature", "build", "--out", "base", "--seed", 3, "--tokens", 2048, *flags]
    first = rtune(*build)
    assert first.code == 0
    assert first.err == ""
    assert "2,048 tokens, 2 steps, on the CPU\n" in first.out
    assert "wrote base: loss " in first.out
    made = json.loads(Path("base/built.json").read_text())
    assert (made["pretrain"]["seed"], made["pretrain"]["tokens"]) == (3, 2048)
    again = rtune(*build)
    assert again.out.splitlines()[-1] == first.out.splitlines()[-1]
    other = rtune(*build[:-2], "--set", "pretrain.context=32")
    assert (other.code, other.err.count("\n")) == (2, 1)
    assert "belongs to another build; choose another --out" in other.err
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt": "What is 3 and 8?"}\n')
    flags = ["--model", "base", "--template", "tulu", "--max-new-tokens", "3", "--out", "c.jsonl"]
    assert "1 answers, 0 errors" in rtune("generate", prompts, *flags).out
