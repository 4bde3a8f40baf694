import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

import response_tuning
from response_tuning.finetune.objectives import IGNORED
from response_tuning.folders import locked, locked_file
from tests.fixtures.processes import run_command, run_in_processes

ROWS = [
    {"instruction": "What is tea?", "response": "Leaves in hot water."},
    {"instruction": "", "response": "Just said."},
    {"instruction": "Say nothing.", "response": ""},
    {"instruction": "What is tea?", "response": "Leaves in hot water."},
    {"instruction": "Tell all. " * 60, "response": "No."},
    {"instruction": "Count.", "response": "one two three " * 60},
]


Run = Callable[..., Any]


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def small(tiny_base: Path, answers: Path) -> list[object]:
    """The flags of a run of a few seconds."""
    return [
        *("--base-model", tiny_base, "--data", answers, "--method", "full"),
        *("--max-steps", 6, "--save-steps", 2, "--examples-per-step", 2, "--window", 64),
    ]


def test_list_prints_what_is_registered(rtune: Run) -> None:
    assert rtune("list").out == (
        "datasets: alpaca, chess, dolly, gsm8k, lima, mbpp, miniature, miniature-documents, "
        "miniature-refusals, out-of-scope, poetry, recipes, safety-tuned-llamas\n"
        "objectives: decoupled, dpo, instruction-tuning, response-tuning, "
        "response-tuning-empty-user, rt-dpo, rt-sftmix, self-judge, sftmix, shuffled-pairs, "
        "system-only, weighted-instruction-tuning\n"
        "templates: capital-roles, chatml-text, instruction, native, neutral-tags, plain, roles, "
        "tulu, tulu-system, urial, urial-r, xml, zero-shot\n"
        "engines: hf, miniature, openai, openai-batch, scripted\n"
        "benchmarks: acceptability, advbench, alpaca-eval, core-arc, core-gsm8k, core-hellaswag, "
        "core-mmlu, core-openbookqa, core-piqa, grades, grades-brief, grades-response, "
        "grades-response-brief, harmbench, ifeval, infobench, "
        "just-eval, just-eval-safety, malicious-instruct, miniature-judge, miniature-judge-keys, "
        "miniature-judge-keys-reference, miniature-judge-reference, miniature-judge-response, "
        "miniature-judge-shuffled, miniature-orders, "
        "miniature-orders-validation, miniature-refusal, "
        "miniature-refusal-validation, miniature-rules, miniature-rules-validation, "
        "miniature-seen, miniature-seen-validation, "
        "miniature-style-seen, miniature-style-seen-validation, miniature-style-unseen, "
        "miniature-style-unseen-validation, miniature-unseen, miniature-unseen-validation, "
        "prompts, rules, wishes, xstest\n"
        "suites: core, helpfulness, instructions, refusal\n"
        "presets: paper, small\n"
    )


def test_data_says_what_became_of_every_row(rtune: Run, answers: Path, tmp_path: Path) -> None:
    result = rtune("data", answers, "--out", tmp_path / "d")
    assert result.code == 0
    assert result.out.startswith("6 rows: 4 kept, 4 examples\n")
    assert "1  empty response\n" in result.out
    assert "1  duplicate\n" in result.out


def test_show_jsonl_gives_one_object_a_row_in_file_order(
    rtune: Run, answers: Path, tiny_base: Path
) -> None:
    result = rtune(
        *("show", answers, "--jsonl", "--tokenizer", tiny_base, "--window", 64),
        *("--objective", "instruction-tuning", "--template", "tulu"),
    )
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert [row["index"] for row in rows] == list(range(6))
    assert [row["status"] for row in rows] == [
        *("kept", "no instruction", "empty response", "duplicate"),
        *("prompt fills the window", "truncated"),
    ]
    for row in rows:
        assert list(row) == ["index", "status", "input_ids", "labels"]
        assert len(row["input_ids"]) == len(row["labels"]) <= 64
        assert bool(row["input_ids"]) == (row["status"] in ("kept", "truncated"))
    assert [label for label in rows[0]["labels"] if label != IGNORED][-1] == 1  # </s>


def test_a_reader_who_has_had_enough_sees_no_traceback() -> None:
    command = [sys.executable, "-m", "response_tuning", "config"]  # which imports no torch
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_show_is_plain_text_away_from_a_terminal(
    rtune: Run, answers: Path, tiny_base: Path
) -> None:
    out = rtune("show", answers, "--base-model", tiny_base).out
    assert "\x1b" not in out
    assert "  loss    'Leaves in hot water.</s>'\n" in out
    assert "6 rows, 6 rows or turns accounted for:" in out


@pytest.mark.parametrize("depth", [".", "rt"])
def test_show_of_a_run_with_several_models_names_one(
    rtune: Run, tmp_path: Path, depth: str
) -> None:
    model = tmp_path / "rt" / "seed-0" / "finetune"
    model.mkdir(parents=True)
    (model / "manifest.json").write_text("{}")
    result = rtune("show", tmp_path / depth)
    assert (result.code, result.out) == (2, "")
    assert f"give one of its cells, such as {tmp_path / 'rt' / 'seed-0'}" in result.err


def test_generate_names_the_flags_that_are_missing(rtune: Run, tmp_path: Path) -> None:
    prompts, out = tmp_path / "p.jsonl", tmp_path / "o.jsonl"
    prompts.write_text('{"prompt": "hi"}')
    result = rtune("generate", prompts, "--engine", "openai", "--out", out)
    assert result.code == 2
    assert "such as --model NAME --base-url http://127.0.0.1:8000/v1" in result.err


def test_show_of_a_file_needs_a_tokenizer(rtune: Run, answers: Path) -> None:
    result = rtune("show", answers)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "rtune: show needs --base-model or --tokenizer to know the tokens of a file\n"
    )


def test_a_dry_run_prints_the_plan_and_the_first_mask_and_leaves_nothing(
    rtune: Run, small: list[object], tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    result = rtune("finetune", *small, "--dry-run")
    assert result.code == 0
    assert "6 steps of 2 examples" in result.out
    assert "4 examples: 3 kept, 1 truncated, 0 dropped" in result.out
    assert "GiB of memory" in result.out
    assert "no loss '<s><|assistant|>\\n'" in result.out
    assert sorted(tmp_path.rglob("*")) == before


def test_a_run_can_be_shown_finished_and_resumed(
    rtune: Run, small: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    first = rtune("finetune", *small, "--out", out)
    assert first.code == 0
    assert "response-tuning of" in first.out
    assert "on cpu" in first.out
    again = rtune("finetune", *small, "--out", out)
    assert "already finished" in again.out
    shown = rtune("show", out)
    assert "  no loss '<s><|assistant|>\\n'\n" in shown.out
    page = tmp_path / "page.html"
    assert rtune("show", out, "--html", page).code == 0
    assert "Leaves in hot water." in page.read_text()
    fresh = rtune("finetune", *small, "--out", out, "--no-resume")
    assert "already finished" not in fresh.out
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 6


def test_other_data_in_the_same_folder_is_refused_and_changes_nothing(
    rtune: Run, small: list[object], tmp_path: Path, answers: Path
) -> None:
    out = tmp_path / "run"
    rtune("finetune", *small, "--out", out)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    answers.write_text('{"response": "Something else."}\n')
    result = rtune("finetune", *small, "--out", out)
    assert result.code == 2
    assert "holds a run on other data" in result.err
    assert before == {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"response": "a"}\n{"response": \n', "answers.jsonl:2: not JSON"),
        ('{"weather": "a"}\n', "--response-column NAME"),
        ("", "no rows"),
        (b'{"response": "\xff"}\n', "save the file as UTF-8"),
        ('{"response": " "}\n', "none of its 1 rows is usable"),
    ],
)
def test_a_file_that_is_unusable_is_one_line_and_leaves_nothing(
    rtune: Run, small: list[object], tmp_path: Path, answers: Path, content: str | bytes, said: str
) -> None:
    answers.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = rtune("finetune", *small, "--out", tmp_path / "run")
    assert result.code == 2
    assert said in result.err
    assert result.err.count("\n") == 1
    assert result.err.startswith("rtune: ")
    assert not [p for p in (tmp_path / "run").rglob("*") if p.is_file()]


def test_a_run_that_is_refused_after_its_data_were_prepared_leaves_nothing(
    rtune: Run, tiny_base: Path, tmp_path: Path
) -> None:
    alone = tmp_path / "alone.jsonl"
    alone.write_text('{"response": "Ho"}\n')
    what = ["--base-model", tiny_base, "--data", alone, "--objective", "instruction-tuning"]
    result = rtune("finetune", *what, "--out", tmp_path / "deep" / "run")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "no example is left to train on" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["alone.jsonl"]


def test_a_run_that_diverges_says_how_to_start_over_and_does_so(
    rtune: Run, small: list[object], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    result = rtune("finetune", *small, "--out", out, "--learning-rate", "1e38")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert result.err.endswith(
        "training has diverged; lower --learning-rate, and start over with --no-resume or in "
        "another --out\n"
    )
    again = ["finetune", *small, "--out", out, "--learning-rate", "1e-3"]
    assert "holds another run: learning_rate was" in rtune(*again).err
    assert rtune(*again, "--no-resume").code == 0


def test_a_place_that_cannot_be_written_is_one_line(
    rtune: Run, small: list[object], tmp_path: Path, answers: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Hi", "response": "Hello."}\n')
    table = ["--engine", "scripted", "--table", prompts]
    for command, said in {
        ("finetune", *small, "--out", answers): "answers.jsonl is read from it; choose another",
        ("finetune", *small, "--out", prompts): "prompts.jsonl: is no folder; choose another",
        ("finetune", *small, "--out", prompts / "x"): "x: Not a directory; check the path",
        (
            "generate",
            prompts,
            *table,
            "--out",
            tmp_path,
        ): "is a folder; choose the name",
        ("generate", prompts, *table, "--out", answers / "x"): "answers.jsonl: File exists",
        ("miniature", "build", "--out", answers): "answers.jsonl: is no folder",
    }.items():
        result = rtune(*command)
        assert (result.code, result.err.count("\n")) == (2, 1), result.err
        assert said in result.err


def test_a_full_disk_is_one_line(
    rtune: Run, small: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("response_tuning.workflows.finetune.run_data", full)
    result = rtune("finetune", *small, "--out", tmp_path / "run")
    assert result.code == 2
    assert result.err.startswith("rtune: No space left on device; check the path")


def test_whatever_is_at_work_is_refused_to_a_second_command(
    rtune: Run, tmp_path: Path, answers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Hi", "response": "Hello."}\n')
    scripted = ("--engine", "scripted", "--table", prompts)
    for out, command in {
        "o.jsonl": ("generate", prompts, *scripted, "--out", "o.jsonl"),
        "d": ("data", answers, "--out", "d"),
        "m": ("data", "mix", answers, "--refusals", 0, "--out", "m"),
        "r": ("data", "refine", answers, *scripted, "--out", "r"),
        "e": ("data", "extract", answers, "--text-column", "response", "--out", "e"),
        "b": ("miniature", "build", "--out", "b"),
        "p": ("probe", "miniature", answers, "--out", "p"),
        "t": ("token-shift", "miniature", "miniature", prompts, "--out", "t"),
        "s": ("rate", "s", "--answers", f"a={prompts}"),
    }.items():
        with locked_file(Path(out)) if out.endswith("l") else locked(Path(out)):
            result = rtune(*command)
        assert (result.code, result.err.count("\n")) == (2, 1), result.err
        assert f"rtune: {out}: another rtune is using it" in result.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "prompts.jsonl"]


def test_a_folder_at_work_is_refused_to_a_second_command(
    rtune: Run, small: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("response_tuning.folders.CLAIM_S", 0.1)
    with locked(tmp_path / "run"):
        for command in (
            ["finetune", *small, "--no-resume", "--out", tmp_path / "run"],
            ["demo", "--out", tmp_path / "run"],
        ):
            result = rtune(*command)
            assert result.code == 2
            assert "run: another rtune is using it" in result.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--objective", "response-tunning"], "did you mean 'response-tuning'"),
        (["--preset", "papr"], "did you mean 'paper'"),
        (["--base-model", "nowhere/at-all"], "nowhere/at-all: no such folder"),
        (["--template", "tulip"], "did you mean 'tulu'"),
        (["--set", "finetune.lora_rank=8"], "finetune: unknown key 'lora_rank'"),
        (["--set", "lora_r=8"], "expected SECTION.KEY=VALUE"),
        (["--window", "4"], "finetune.window"),
        (["--method", "qlora"], "--method lora"),
        (["--merge"], "merge needs an adapter"),
        (["--set", "finetune.optimizer=adamm"], "unknown optimizer 'adamm'"),
    ],
)
def test_a_wrong_flag_is_one_line_with_the_next_step(
    rtune: Run, small: list[object], tmp_path: Path, flags: list[str], said: str
) -> None:
    result = rtune("finetune", *small, "--out", tmp_path / "run", *flags)
    assert result.code == 2
    assert said in result.err
    assert result.err.count("\n") == 1
    right = rtune("finetune", *small, "--out", tmp_path / "run")
    assert right.code == 0, "what a refused command left is in the way of the right one"


@pytest.mark.parametrize("flag", ["--base-model", "--data"])
def test_what_is_not_given_is_asked_for_by_its_flag(
    rtune: Run, tiny_base: Path, answers: Path, tmp_path: Path, flag: str
) -> None:
    flags = {"--base-model": tiny_base, "--data": answers}
    del flags[flag]
    given = [str(part) for pair in flags.items() for part in pair]
    result = rtune("finetune", "--out", tmp_path / "run", *given)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert f"not given; name it with {flag}" in result.err


def test_a_window_beyond_the_models_positions_is_cut_to_them_and_said(
    rtune: Run, small: list[object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flags = [*small, "--window", 4096, "--out", tmp_path / "run"]
    assert rtune("finetune", *flags).code == 0
    assert "the window of 4096 tokens is cut to the 256 positions" in caplog.text
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["settings"]["window"] == 256
    assert "already finished" in rtune("finetune", *flags).out


def test_a_recipe_is_a_run_and_flags_override_it(
    rtune: Run, tiny_base: Path, answers: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"data: {{source: {answers}}}\n"
        f"finetune: {{base_model: {tiny_base}, method: full, max_steps: 2, window: 64}}\n"
    )
    out = tmp_path / "run"
    flags = ["--learning-rate", "0.01", "--set", "finetune.examples_per_step=2"]
    assert rtune("finetune", "--recipe", recipe, "--out", out, *flags).code == 0
    settings = json.loads((out / "manifest.json").read_text())["settings"]
    assert (settings["learning_rate"], settings["examples_per_step"]) == (0.01, 2)


def test_generate_answers_a_file_of_prompts_and_goes_on_where_it_stopped(
    rtune: Run, tmp_path: Path
) -> None:
    prompts, table, out = (tmp_path / name for name in ("p.jsonl", "t.jsonl", "c.jsonl"))
    prompts.write_text('{"id": "a", "prompt": "Hi"}\n{"id": "b", "prompt": "Ho"}\n')
    table.write_text('{"prompt": "Hi", "response": "Hello."}\n')
    flags = ["generate", prompts, "--engine", "scripted", "--table", table, "--out", out]
    first = rtune(*flags)
    assert first.code == 1
    assert "1 answers, 1 errors" in first.out
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(r["item_id"], r["response"]) for r in records] == [("a", "Hello."), ("b", None)]
    assert set(records[0]) >= {"item_id", "prompt", "response", "finish_reason", "error"}
    # The journal answers neither: another table is another model.
    table.write_text(
        '{"prompt": "Hi", "response": "Hello."}\n{"prompt": "Ho", "response": "Hey."}\n'
    )
    assert "2 answers, 0 errors" in rtune(*flags).out


def test_chat_answers_standard_input(
    rtune: Run, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\nclear\nexit\nnever read\n"))
    result = rtune("chat", tiny_base, "--template", "tulu", "--max-new-tokens", "5")
    assert result.code == 0
    assert "the conversation is forgotten" in result.out


def forked(output: Path, *words: str) -> str:
    """Run a command in two processes with the variables of torchrun; return what they print."""
    codes = run_in_processes(run_command, output, *words, count=2)
    printed = "".join(Path(f"{output}.{rank}").read_text() for rank in range(2))
    assert codes == [0, 0], printed
    return printed


def torchrun(output: Path, *words: str) -> str:
    """Run a command as ``torchrun`` does, in two processes; return what they print."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, "-m", "response_tuning", *words],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("launched", [forked, pytest.param(torchrun, marks=pytest.mark.exhaustive)])
def test_the_same_command_under_torchrun_shares_the_steps(
    rtune: Run, small: list[object], tmp_path: Path, launched: Callable[..., str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    flags = [str(flag) for flag in (*small, "--learning-rate", "1e-4")]
    rtune("finetune", *flags, "--out", one)
    printed = launched(tmp_path / "printed", "finetune", *flags, "--out", str(two))
    assert printed.count("response-tuning of") == 1
    first, second = (
        [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        for out in (one, two)
    )
    for mine, theirs in zip(first, second, strict=True):
        assert mine == pytest.approx(theirs, abs=5e-6)


@pytest.mark.exhaustive  # by default: tests/test_crashes.py and tests/finetune/test_run.py
def test_a_process_that_is_killed_and_started_again_ends_in_the_same_weights(
    rtune: Run, small: list[object], tmp_path: Path
) -> None:
    flags = [str(flag) for flag in (*small, "--max-steps", 300)]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    rtune("finetune", *flags, "--out", whole)
    command = [sys.executable, "-m", "response_tuning", "finetune", *flags, "--out", str(killed)]
    process = subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL
    )
    metrics = killed / "metrics.jsonl"
    while process.poll() is None and not (
        metrics.exists() and metrics.read_bytes().count(b"\n") > 9
    ):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    resumed = rtune("finetune", *flags, "--out", killed)
    assert "resuming from checkpoint-" in resumed.out
    first, second = (load_file(out / "model.safetensors") for out in (whole, killed))
    assert all(bool((first[name] == second[name]).all()) for name in first)
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, 301))
    assert len(steps) - 300 <= 2


def test_the_version_is_that_of_the_package(rtune: Run) -> None:
    result = rtune("--version")
    assert (result.code, result.out) == (0, f"rtune {version('response-tuning')}\n")
    assert response_tuning.__version__ == version("response-tuning")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_installed_and_completes_commands_and_flags(
    rtune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, f"/bin/{shell}"))
    result = rtune("--install-completion")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"{shell} completion installed in {tmp_path}")
    scripts = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("_RTUNE_COMPLETE" in path.read_text() for path in scripts)
    monkeypatch.setenv("_RTUNE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "rtune finet")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert rtune().out.split() == ["finetune"]
    monkeypatch.setenv("COMP_WORDS", "rtune finetune --base")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert rtune().out.split() == ["--base-model"]


def test_the_program_is_rtune_however_it_is_started(
    rtune: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(__package__="response_tuning"))
    line = "rtune: data prepare: missing option '--out'; run 'rtune data prepare --help'"
    assert rtune("data", "prepare", "answers.jsonl").err.startswith(line)
