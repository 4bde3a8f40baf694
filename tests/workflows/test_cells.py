import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from rich.console import Console

from response_tuning.artifacts import Completion, file_digest, read_json
from response_tuning.errors import ConfigError, DataError
from response_tuning.finetune.trainer import ResponseTrainer
from response_tuning.folders import free_folder, locked, shared
from response_tuning.generate.engines.hf import HfEngine
from response_tuning.journals import Journal
from response_tuning.models import location
from response_tuning.workflows.report import report_run
from response_tuning.workflows.run import run_experiment
from tests.fixtures.experiments import BENCHMARK, CELLS, Make, contents, quiet, settings
from tests.fixtures.processes import run_in_processes
from tests.workflows.processes import run_at_once

TABLES = ("report/results.csv", "report/comparisons.csv")


def printed(make: Make, run: Path, *only: str, **changes: Any) -> str:
    out = io.StringIO()
    run_experiment(make(**changes), run, Console(file=out, width=200), only=only)
    return out.getvalue()


@contextmanager
def at_work(run: Path, cell: str) -> Iterator[None]:
    """Have a cell as another process would."""
    with shared(run), locked(run / cell, inside=True):
        yield


def status(run: Path, cell: str) -> str:
    return str(read_json(run / cell / "manifest.json")["status"])


def crash(*_: object, **__: object) -> NoReturn:
    raise AssertionError


def without_clock(content: bytes) -> Any:
    manifest = json.loads(content)
    for key in ("cost", "cells", "peak_memory_gib", "command"):
        manifest.pop(key, None)
    return manifest


def assert_same_run(mine: Path, theirs: Path) -> None:
    """The same files with the same bytes, but for seconds, memory and the command in manifests.

    Which questions the other seed of an untuned model was asked depends on who came first, and so
    does the order in its journal.
    """
    found, expected = contents(mine), contents(theirs)
    assert found.keys() == expected.keys()
    for name, content in found.items():
        if name.endswith("manifest.json"):
            assert without_clock(content) == without_clock(expected[name]), name
        elif name.endswith(".html"):
            assert without_command(content) == without_command(expected[name]), name
        elif not name.endswith(".journal"):
            assert content == expected[name], name


def without_command(page: bytes) -> bytes:
    """The command that began a run stands at the foot of its report."""
    return re.sub(rb"<dt>command</dt><dd>[^<]*</dd>", b"", page)


@pytest.mark.parametrize("processes", [2])
def test_processes_that_start_at_once_share_the_cells_and_end_as_one_process(
    processes: int, miniature_base: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(settings(miniature_base)))
    command = ["run", str(recipe), "--out", str(tmp_path / "run")]
    codes = run_in_processes(run_at_once, processes, tmp_path, command)
    logs = [path.read_text() for path in sorted(tmp_path.glob("*.log"))]
    assert codes == [0], logs
    assert len(logs) == processes
    assert_same_run(tmp_path / "run", uninterrupted)
    tuned = [log.count("carry loss") for log in logs]
    assert sum(tuned) == 2, "no cell was tuned twice"


def test_a_cell_in_use_is_passed_over_and_named_everywhere(
    make: Make, uninterrupted: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with at_work(run, "rt/seed-0"):
        out = printed(make, run)
    assert "[1/4] rt, seed 0: in use by another process\n" in out
    assert "in use by other processes: rt/seed-0; the last process to finish reports" in out
    sentence = "Not in this report: rt/seed-0 (unfinished)."
    assert sentence in out
    for name in ("report.md", "report.html"):
        assert sentence in (run / "report" / name).read_text()
    manifest = read_json(run / "manifest.json")
    assert manifest["status"] == "running"
    assert manifest["incomplete"] == {"rt/seed-0": "unfinished"}
    assert [status(run, cell) for cell in CELLS[1:]] == ["graded"] * 3
    printed(make, run)
    assert_same_run(run, uninterrupted)


def test_only_some_cells_run_and_the_report_names_the_others(
    make: Make, uninterrupted: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    out = printed(make, run, "rt/seed-1", "base")
    assert [line for line in out.splitlines() if line.startswith("[")] == [
        *("[1/3] rt, seed 1", "[2/3] base, seed 0", "[3/3] base, seed 1")
    ]
    assert not (run / "rt/seed-0").exists()
    assert "Not in this report: rt/seed-0 (not started)." in out
    assert "rt,miniature-unseen-validation,strict" in (run / TABLES[0]).read_text()
    printed(make, run, "rt")
    assert_same_run(run, uninterrupted)


@pytest.mark.parametrize(
    ("changes", "key"),
    [({"grade": {"limit": 3}}, "grade.limit"), ({"generate": {"stop": ["x"]}}, "generate.stop")],
)
def test_some_cells_are_not_run_with_settings_that_drop_the_others_from_the_report(
    make: Make, run: Path, changes: dict[str, Any], key: str
) -> None:
    before = contents(run)
    with pytest.raises(ConfigError, match=f"rt/seed-0 was made with another {key}, and --only"):
        printed(make, run, "base", **changes)
    assert contents(run) == before


def test_a_setting_of_one_variant_may_change_when_only_that_runs(make: Make, run: Path) -> None:
    variants = settings(run)["variants"]
    variants["base"]["generate"] = {"max_new_tokens": 2}
    assert "Not in this report" not in printed(make, run, "base", variants=variants)


def test_an_unknown_cell_is_refused_before_anything_is_written(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown cell 'rt/seed-3': did you mean 'rt/seed-"):
        run_experiment(make(), tmp_path / "run", quiet(), only=["rt/seed-3"])
    with pytest.raises(ConfigError, match="unknown cell 'bose': did you mean 'base'"):
        run_experiment(make(), tmp_path / "run", quiet(), only=["base", "bose"])
    assert [*tmp_path.iterdir()] == []


def test_an_untuned_model_that_another_process_asks_is_asked_last_here(
    make: Make, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    variants = {name: settings(run)["variants"][name] for name in ("base", "rt")}
    with at_work(run, "base/seed-0"):
        order = printed(make, run, variants=variants).splitlines()
    assert [line.partition("]")[2] for line in order if line.startswith("[")] == [
        " base, seed 0: in use by another process",
        *(" rt, seed 0", " rt, seed 1", " base, seed 1"),
    ]


def test_a_run_of_an_earlier_version_goes_on_and_is_asked_nothing_again(
    make: Make, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(run)
    for variant in ("rt", "base"):  # one journal for all seeds, and no manifests of cells
        with Journal(run / variant / "completions.journal", Completion).appending() as append:
            for seed in (0, 1):
                for completion in Journal(
                    run / variant / f"seed-{seed}/completions.journal", Completion
                ):
                    append(completion)
    for cell in CELLS:
        for name in ("manifest.json", ".rtune.json", "completions.journal"):
            (run / cell / name).unlink()
    report_run(run, quiet())
    assert contents(run)["report/results.csv"] == before["report/results.csv"]
    shutil.rmtree(run / "rt/seed-1/generate")
    shutil.rmtree(run / "rt/seed-1/grade")
    monkeypatch.setattr(HfEngine, "complete", crash)
    monkeypatch.setattr(ResponseTrainer, "__init__", crash)
    run_experiment(make(), run, quiet())
    after = contents(run)
    for name in before:
        if not name.endswith((".journal", "manifest.json")):
            assert after[name] == before[name], name
    assert read_json(run / "manifest.json")["status"] == "finished"
    costs = json.loads(before["manifest.json"])["cells"]
    for cell, stages in read_json(run / "manifest.json")["cells"].items():
        assert stages.keys() == costs[cell].keys()
        # The longer of what a stage took then and now, when a busy machine may take longer to skip.
        assert all(seconds >= costs[cell][stage] for stage, seconds in stages.items())


def test_a_cell_that_was_made_with_other_settings_or_changed_since_is_no_part_of_a_report(
    make: Make, run: Path
) -> None:
    manifest = run / "rt/seed-0/manifest.json"
    content = read_json(manifest)
    content["inputs"]["finetune"]["learning_rate"] = 1.0
    manifest.write_text(json.dumps(content))
    answers = run / f"base/seed-1/generate/{BENCHMARK}.jsonl"
    answers.write_text("\n".join(reversed(answers.read_text().splitlines())) + "\n")
    out = io.StringIO()
    report_run(run, Console(file=out, width=200))
    assert "rt/seed-0 (made with another finetune.learning_rate)" in out.getvalue()
    assert f"base/seed-1 ({BENCHMARK}: {answers} has changed since it was graded)" in out.getvalue()
    with (run / TABLES[0]).open() as table:
        seeds = {line["variant"]: line["seeds"] for line in csv.DictReader(table)}
    assert seeds == {"rt": "1", "base": "1"}


@pytest.mark.parametrize("damage", ["half", "empty"])
@pytest.mark.parametrize("file", [f"grade/{BENCHMARK}.jsonl", f"generate/{BENCHMARK}.jsonl"])
def test_scores_and_answers_that_lost_lines_are_no_part_of_a_report_and_made_again(
    file: str, damage: str, make: Make, run: Path
) -> None:
    whole = contents(run)
    path = run / "rt/seed-0" / file
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"" if damage == "empty" else b"".join(lines[: len(lines) // 2]))
    out = io.StringIO()
    report_run(run, Console(file=out, width=200))
    assert "Not in this report: rt/seed-0 (" in out.getvalue()
    run_experiment(make(), run, quiet())
    again = contents(run)
    for name in (f"rt/seed-0/{file}", TABLES[0]):
        assert again[name] == whole[name]


def test_a_stage_whose_manifest_is_damaged_is_made_again(make: Make, run: Path) -> None:
    whole = contents(run)
    for stage in ("generate", "grade"):
        manifest = run / "rt/seed-0" / stage / "manifest.json"
        manifest.write_bytes(manifest.read_bytes()[:40])
    out = io.StringIO()
    report_run(run, Console(file=out, width=200))
    assert "grade/manifest.json is damaged)" in out.getvalue()
    run_experiment(make(), run, quiet())
    assert contents(run)["rt/seed-0/grade/manifest.json"] == whole["rt/seed-0/grade/manifest.json"]


@pytest.mark.parametrize(
    ("manifest", "key", "named"),
    [
        ("base/seed-0/generate/manifest.json", "model", "base/seed-0"),
        ("rt/seed-1/finetune/manifest.json", "base", "rt/seed-1"),
    ],
)
def test_a_cell_made_with_another_base_of_the_same_name_is_no_part_of_a_report(
    run: Path, manifest: str, key: str, named: str
) -> None:
    content = read_json(run / manifest)
    (run / manifest).write_text(json.dumps(content | {key: "local@other"}))
    out = io.StringIO()
    report_run(run, Console(file=out, width=200))
    said = f"Not in this report: {named} (made with another base than rt/seed-0)."
    assert said in out.getvalue()
    assert said in (run / "report" / "report.md").read_text()


def test_a_base_that_an_earlier_version_recorded_is_not_compared(run: Path) -> None:
    manifest = run / "rt/seed-0/finetune/manifest.json"
    manifest.write_text(json.dumps(read_json(manifest) | {"base": "sha256:other"}))
    out = io.StringIO()
    report_run(run, Console(file=out, width=200))
    assert "Not in this report" not in out.getvalue()


def test_a_run_without_a_whole_cell_has_no_report(make: Make, run: Path) -> None:
    for cell in CELLS:
        shutil.rmtree(run / cell / "grade")
    with pytest.raises(DataError, match=r"no cell is whole, the first, rt/seed-0, .*gone") as error:
        report_run(run, quiet())
    assert "\n" not in str(error.value)


def test_a_refused_experiment_leaves_the_data_of_a_cell_that_another_process_has(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, stack = tmp_path / "run", ExitStack()
    variants = {"held": {"finetune": {"eval_fraction": 0.9999999}}, "rt": {}}
    experiment = make(seeds=[0], variants=variants, report={"baselines": ["rt"]})

    def taken(*_: object, **__: object) -> NoReturn:
        stack.enter_context(locked(run / "rt/seed-0", inside=True))
        raise ConfigError("leaves none")

    monkeypatch.setattr("response_tuning.workflows.cells.tune_and_answer", taken)
    with stack:
        with pytest.raises(ConfigError, match="leaves none"):
            run_experiment(experiment, run, quiet())
        assert not (run / "held/seed-0/data").exists()
        assert (run / "rt/seed-0/data/examples.jsonl").exists()


def test_answers_wait_for_those_of_their_reference(
    make: Make, miniature_base: Path, tmp_path: Path, server: Any
) -> None:
    server.says = lambda prompt: "Verdict: A"
    prompts = tmp_path / "asked.json"
    prompts.write_text(json.dumps([{"instruction": "Say one.", "dataset": "own"}]))
    settings_of_judge = {"model": "judge", "base_url": server.url}
    changes: dict[str, Any] = {
        "seeds": [0],
        "benchmarks": ["alpaca-eval"],
        "grade": {
            "reference": "base",
            "paths": {"alpaca-eval": str(prompts)},
            "judge": {"engine": "openai", "settings": settings_of_judge},
        },
        "variants": {"other": {"finetune": None}, "base": {"finetune": None}},
    }
    run = tmp_path / "run"
    out = printed(make, run, "other", **changes)
    assert "other/seed-0 is not graded yet: base/seed-0, its reference, has no answers" in out
    assert "Not in this report: other/seed-0 (answered, not graded)." in out
    assert read_json(run / "manifest.json")["incomplete"] == {
        "other/seed-0": "answered, not graded",
        "base/seed-0": "not started",
    }
    assert "Not in this report" not in printed(make, run, **changes)
    assert [status(run, f"{name}/seed-0") for name in ("other", "base")] == ["graded"] * 2


def test_a_variant_may_be_compared_with_a_reference_of_its_own(
    make: Make, miniature_base: Path, tmp_path: Path, server: Any
) -> None:
    server.says = lambda prompt: "Verdict: A"
    prompts = tmp_path / "asked.json"
    prompts.write_text(json.dumps([{"instruction": "Say one.", "dataset": "own"}]))
    answers: list[dict[str, Any]] = [
        {"item_id": "alpaca-eval-000", "prompt": [{"role": "user", "content": "Say one."}],
         "response": word, "finish_reason": "stop", "key": word, "model": word, "template": "",
         "sampling": {}}
        for word in ("FIRST ANSWER", "SECOND ANSWER")
    ]  # fmt: skip
    for name, one in zip(("first", "second"), answers, strict=True):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(one) + "\n")
    changes: dict[str, Any] = {
        "seeds": [0],
        "benchmarks": ["alpaca-eval"],
        "grade": {
            "reference": str(tmp_path / "first.jsonl"),
            "paths": {"alpaca-eval": str(prompts)},
            "judge": {
                "engine": "openai",
                "settings": {"model": "judge", "base_url": server.url},
            },
        },
        "variants": {
            "one": {"finetune": None},
            "two": {"finetune": None, "reference": str(tmp_path / "second.jsonl")},
        },
        "report": {"baselines": []},
    }
    run = tmp_path / "run"
    printed(make, run, "one", **changes)
    assert all("FIRST ANSWER" in prompt for prompt in server.asked)
    server.asked.clear()
    printed(make, run, **changes)
    assert len(server.asked) == 2
    assert all("SECOND ANSWER" in prompt for prompt in server.asked)


def test_the_weights_of_a_base_are_hashed_once_a_run(
    make: Make, miniature_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []

    def counted(path: Path, *known: Any) -> str:
        hashed.append(path)
        return file_digest(path, *known)

    monkeypatch.setattr(location, "file_digest", counted)
    location._sha256.cache_clear()
    run_experiment(make(generate={"max_new_tokens": 2}), tmp_path / "run", quiet())
    assert hashed.count(miniature_base / "model.safetensors") == 1


def test_one_process_at_a_time_has_a_cell(tmp_path: Path) -> None:
    with locked(tmp_path / "run"):
        with free_folder(tmp_path / "run/cell") as is_free:
            assert is_free
            with free_folder(tmp_path / "run/cell") as also_free:
                assert not also_free
        with free_folder(tmp_path / "run/cell") as free_again:
            assert free_again
