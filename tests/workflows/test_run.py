import csv
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

import pytest
from rich.console import Console

from response_tuning.artifacts import Completion, Score, read_json, read_jsonl, write_json
from response_tuning.errors import ConfigError, DataError, EngineError, ResponseTuningError
from response_tuning.finetune.trainer import ResponseTrainer
from response_tuning.generate import EngineConfig
from response_tuning.generate.engine import failed
from response_tuning.generate.engines.hf import HfEngine
from response_tuning.journals import Journal
from response_tuning.validation import build
from response_tuning.workflows.cell_manifest import cell_training
from response_tuning.workflows.experiment import Experiment, cells
from response_tuning.workflows.plan import plan_experiment
from response_tuning.workflows.report import _variants, report_run
from response_tuning.workflows.run import checked, run_experiment
from response_tuning.workflows.show import show_run
from tests.fixtures.experiments import BENCHMARK, CELLS, ITEMS, Make, contents, quiet, settings

MADE = {"source": "miniature-refusals", "selector": "all"}


def test_a_run_is_a_folder_for_each_cell_a_report_and_a_manifest(uninterrupted: Path) -> None:
    found = contents(uninterrupted)
    assert {name.split("/")[0] for name in found} == {
        *("rt", "base", "report", "manifest.json", ".rtune.json")
    }
    for cell in CELLS:
        names = {path.name for path in (uninterrupted / cell).iterdir()}
        tuned = {"data", "finetune"} if cell.startswith("rt") else set()
        own = {".rtune.json", "completions.journal", "manifest.json"}
        assert names == {"generate", "grade"} | tuned | own
        for stage in ("generate", "grade"):
            files = {path.name for path in (uninterrupted / cell / stage).iterdir()}
            assert files == {f"{BENCHMARK}.jsonl", "manifest.json"}
    assert "rt/seed-0/data/examples.jsonl" in found
    assert "rt/seed-0/finetune/model.safetensors" in found
    assert "report/results.csv" in found


def test_every_model_answers_every_item_and_every_answer_is_graded(uninterrupted: Path) -> None:
    said = {}
    for cell in CELLS:
        completions = list(
            read_jsonl(uninterrupted / cell / "generate" / f"{BENCHMARK}.jsonl", Completion)
        )
        scores = list(read_jsonl(uninterrupted / cell / "grade" / f"{BENCHMARK}.jsonl", Score))
        assert len({completion.item_id for completion in completions}) == ITEMS
        assert {score.item_id for score in scores} == {c.item_id for c in completions}
        assert {completion.error for completion in completions} == {None}
        said[cell] = [completion.response for completion in completions]
    assert len({tuple(answers) for answers in said.values()}) == 3, (
        "seeds of rt and the base differ"
    )
    assert said["base/seed-0"] == said["base/seed-1"]


def test_a_model_that_is_not_tuned_is_asked_once_for_all_seeds(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    complete = HfEngine.complete

    def counted(self: HfEngine, requests: Any, sampling: Any) -> Iterator[Completion]:
        asked.append(len(requests))
        return complete(self, requests, sampling)

    monkeypatch.setattr(HfEngine, "complete", counted)
    run_experiment(make(variants={"base": {"finetune": None}}), tmp_path / "run", quiet())
    assert asked == [ITEMS]


def test_every_cell_has_a_journal_of_its_own_with_all_its_answers(uninterrupted: Path) -> None:
    for cell in CELLS:
        kept = [c.key for c in Journal(uninterrupted / cell / "completions.journal", Completion)]
        completions = read_jsonl(uninterrupted / cell / f"generate/{BENCHMARK}.jsonl", Completion)
        assert sorted(kept) == sorted(completion.key for completion in completions)


def test_the_results_are_of_all_seeds_and_compared_with_the_baseline(uninterrupted: Path) -> None:
    with (uninterrupted / "report" / "results.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert {(row["variant"], row["seeds"]) for row in rows} == {("rt", "2"), ("base", "2")}
    assert {"strict", "correct", "false_refusal", "stopped", "tokens_mean"} <= {
        row["metric"] for row in rows
    }
    with (uninterrupted / "report" / "comparisons.csv").open() as table:
        assert {(row["baseline"], row["variant"]) for row in csv.DictReader(table)} == {
            ("base", "rt")
        }
    assert "A note." in (uninterrupted / "report" / "report.md").read_text()


def test_the_manifest_says_what_was_run_on_what_and_at_what_cost(
    uninterrupted: Path, make: Make
) -> None:
    manifest = read_json(uninterrupted / "manifest.json")
    assert build(Experiment, manifest.pop("experiment"), "manifest") == make()
    assert manifest.pop("packages")["torch"]
    cells = manifest.pop("cells")
    assert {cell: set(cost) for cell, cost in cells.items()} == {
        cell: {"finetune", "generate"} if cell.startswith("rt") else {"generate"} for cell in CELLS
    }
    assert all(cells[cell]["finetune"] > 0 for cell in ("rt/seed-0", "rt/seed-1"))
    assert manifest.pop("peak_memory_gib") > 0
    assert manifest.pop("device").startswith("cpu (")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", manifest.pop("date"))
    assert manifest.pop("command") == ""  # a call from Python
    assert manifest == {"status": "finished"}


def test_the_report_ends_with_what_the_run_was_made_from_and_keeps_how_it_began(
    run: Path, make: Make
) -> None:
    path = run / "manifest.json"
    write_json(path, read_json(path) | {"command": "rtune run r.yaml", "date": "2020-02-02"})
    run_experiment(make(), run, quiet())
    assert read_json(path)["date"] == "2020-02-02"
    page = (run / "report" / "report.html").read_text(encoding="utf-8")
    foot = page.partition('<h2 id="provenance">')[2]
    for name in ("command", "date", "versions", "base", "data", "examples", "write again"):
        assert f"<dt>{name}</dt>" in foot
    assert "<dd>rtune run r.yaml</dd>" in foot
    assert "<dd>2020-02-02</dd>" in foot
    assert str(run) not in foot


def without_cost(run: Path) -> dict[str, Any]:
    manifest = read_json(run / "manifest.json")
    del manifest["peak_memory_gib"]
    return manifest | {"cells": {cell: list(cost) for cell, cost in manifest["cells"].items()}}


def test_the_same_run_elsewhere_gives_the_same_bytes(
    make: Make, uninterrupted: Path, tmp_path: Path
) -> None:
    run = tmp_path / "elsewhere" / "run"
    run_experiment(make(), run, quiet())
    if (
        read_json(run / "manifest.json")["date"]
        != read_json(uninterrupted / "manifest.json")["date"]
    ):
        pytest.skip("the two runs began on two days")
    assert without_cost(run) == without_cost(uninterrupted)
    mine, theirs = contents(run), contents(uninterrupted)
    assert mine.keys() == theirs.keys()
    apart = {name for name in mine if mine[name] != theirs[name]}
    clocked = ("manifest.json", "finetune/manifest.json")
    assert apart <= {"manifest.json", *(f"{cell}/{name}" for cell in CELLS for name in clocked)}


def crash(*_: object, **__: object) -> NoReturn:
    raise AssertionError


def test_a_finished_run_trains_nothing_and_asks_nothing(
    make: Make, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(run)
    monkeypatch.setattr("response_tuning.generate.open_engine", crash)
    monkeypatch.setattr("response_tuning.grade.grade", crash)
    monkeypatch.setattr("response_tuning.data.prepare", crash)
    monkeypatch.setattr(ResponseTrainer, "__init__", crash)
    run_experiment(make(), run, quiet())
    after = contents(run)
    assert {name for name in after if after[name] != before.get(name)} <= {"manifest.json"}
    assert after.keys() == before.keys()
    manifests = [json.loads(found["manifest.json"]) for found in (before, after)]
    assert manifests[0]["cells"] == manifests[1]["cells"], "what was skipped costs what it cost"


@contextmanager
def killed_while_answering(cell: int, answers: int) -> Iterator[None]:
    """Raise when a cell, counted from one, has so many answers."""
    opened = 0
    complete = HfEngine.complete

    def counted(self: HfEngine, *asked: Any) -> Iterator[Completion]:
        nonlocal opened
        opened += 1
        for number, completion in enumerate(complete(self, *asked)):
            if (opened, number) == (cell, answers):
                raise KeyboardInterrupt
            yield completion

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HfEngine, "complete", counted)
        yield


def test_a_run_that_is_killed_while_answering_ends_as_an_uninterrupted_one(
    make: Make, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with killed_while_answering(cell=2, answers=60), pytest.raises(KeyboardInterrupt):
        run_experiment(make(), run, quiet())
    assert read_json(run / "manifest.json")["status"] == "running"
    assert not (run / "report").exists()
    journal = run / "rt" / "seed-1" / "completions.journal"
    assert len(list(Journal(journal, Completion))) == 60
    monkeypatch.setattr(ResponseTrainer, "train", crash)
    run_experiment(make(), run, quiet())
    assert len(list(Journal(journal, Completion))) == ITEMS
    mine, theirs = contents(run), contents(uninterrupted)
    assert mine.keys() == theirs.keys()
    for name in mine:
        if name.endswith((".csv", ".html", ".md")) or "/generate/" in name or "/grade/" in name:
            assert mine[name] == theirs[name], name


def test_a_run_that_is_killed_while_training_goes_on(
    make: Make, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ResponseTrainer, "train", crash)
        with pytest.raises(AssertionError):
            run_experiment(make(), run, quiet())
    run_experiment(make(), run, quiet())
    name = "report/results.csv"
    assert contents(run)[name] == contents(uninterrupted)[name]


def test_a_folder_that_is_gone_is_made_again_from_what_is_left(make: Make, run: Path) -> None:
    before = contents(run)
    shutil.rmtree(run / "rt" / "seed-0" / "generate")
    shutil.rmtree(run / "base" / "seed-1" / "grade")
    shutil.rmtree(run / "report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HfEngine, "complete", crash)
        run_experiment(make(), run, quiet())
    after = contents(run)
    assert {name for name in before if after[name] != before[name]} <= {"manifest.json"}


def test_an_answer_that_was_changed_by_hand_is_graded_again(make: Make, run: Path) -> None:
    answers = run / "base" / "seed-0" / "generate" / f"{BENCHMARK}.jsonl"
    scores = run / "base" / "seed-0" / "grade" / f"{BENCHMARK}.jsonl"
    completions = list(read_jsonl(answers, Completion))
    assert completions[0].item_id == "food-000"
    text = answers.read_text().splitlines(keepends=True)
    changed = completions[0].model_copy(update={"response": "I can't help with that."})
    # An editor may drop the ending of the last line.
    answers.write_text("".join([changed.model_dump_json() + "\n", *text[1:]]).rstrip())
    run_experiment(make(), run, quiet())
    refusals = [s.value for s in read_jsonl(scores, Score) if s.metric == "false_refusal"]
    assert sum(refusals) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"finetune": {"learning_rate": 0.5}}, "holds another run: learning_rate was 0.002"),
        ({"finetune": {"objective": "response-tuning-empty-user"}}, "holds another run: objective"),
        ({"data": {"max_examples": 32}}, "holds a run on other data"),
        ({"data": {"mixture": {**MADE, "refusals": 8}}}, "holds a run on other data"),
    ],
)
@pytest.mark.parametrize("tuned_first", [True, False])
def test_another_run_in_the_same_folder_is_refused_and_changes_nothing(
    changes: dict[str, Any], said: str, tuned_first: bool, make: Make, run: Path
) -> None:
    before = contents(run)
    variants = dict(sorted(settings(run)["variants"].items(), reverse=tuned_first))
    with pytest.raises(ConfigError, match=said) as caught:
        run_experiment(make(variants=variants, **changes), run, quiet())
    assert str(run / "rt" / "seed-0") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert contents(run) == before


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"eval_fraction": 0.9999999}, "eval_fraction 0.9999999 of 64 examples leaves none"),
        ({"objective": "instruction-tuning", "window": 8}, "no example is left to train on"),
    ],
)
def test_a_run_that_is_refused_after_its_data_were_prepared_leaves_nothing(
    make: Make, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ResponseTuningError, match=said):
        run_experiment(make(finetune=changes), tmp_path / "deep" / "run", quiet())
    assert [*tmp_path.iterdir()] == []


def test_a_variant_that_is_refused_leaves_those_before_it(make: Make, tmp_path: Path) -> None:
    variants = {
        "rt": {"label": "response tuning"},
        "held": {"label": "refused", "finetune": {"eval_fraction": 0.9999999}},
    }
    with pytest.raises(ConfigError, match="leaves none"):
        run_experiment(
            make(seeds=[0], variants=variants, report={"baselines": ["rt"]}),
            tmp_path / "run",
            quiet(),
        )
    cell = tmp_path / "run" / "rt" / "seed-0"
    assert read_json(cell / "finetune" / "manifest.json")["status"] == "finished"
    assert (cell / "data" / "examples.jsonl").exists()
    assert not (tmp_path / "run" / "held" / "seed-0" / "data").exists()


def test_other_settings_of_the_answers_ask_again_and_train_nothing(
    make: Make, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ResponseTrainer, "__init__", crash)
    run_experiment(make(generate={"max_new_tokens": 3}), run, quiet())
    for cell in CELLS:
        completions = read_jsonl(run / cell / "generate" / f"{BENCHMARK}.jsonl", Completion)
        assert {completion.sampling.max_new_tokens for completion in completions} == {3}
        assert read_json(run / cell / "grade" / "manifest.json").keys() == {BENCHMARK}


def test_a_variant_more_costs_that_variant_alone(
    make: Make, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(run)
    monkeypatch.setattr(ResponseTrainer, "__init__", crash)
    variants = {**settings(run)["variants"], "zero": {"finetune": None}}
    run_experiment(make(variants=variants), run, quiet())
    after = contents(run)
    changed = {name.split("/")[0] for name in after if after[name] != before.get(name)}
    assert changed == {"zero", "report", "manifest.json"}
    assert read_json(run / "manifest.json")["cells"].keys() == {
        *CELLS,
        "zero/seed-0",
        "zero/seed-1",
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"benchmarks": ["miniature-sen"]}, "did you mean 'miniature-seen'"),
        ({"grade": {"reference": "bas"}}, "no such file, and unknown variant 'bas': did you mean"),
        ({"finetune": {"objective": "response-tunning"}}, "did you mean 'response-tuning'"),
        ({"finetune": {"template": "tulip"}}, "unknown template 'tulip'"),
        ({"finetune": {"twins": ["it"]}}, "unknown objective 'it'"),
        ({"generate": {"template": "tulip"}}, "unknown template 'tulip'"),
        ({"report": {"baselines": ["rd"]}}, "unknown baseline 'rd'"),
        ({"finetune": {"base_model": "miniture"}}, "^miniture: no such folder; did you mean 'mini"),
        ({"finetune": {"optimizer": "adamw_torc"}}, "did you mean 'adamw_torch'"),
        ({"finetune": {"report_to": "wandbb"}}, "unknown tracker 'wandbb': did you mean 'wandb'"),
        ({"data": {"source": "miniatur"}}, "'miniatur': no such file .* did you mean 'miniature'"),
        (
            {"data": {"mixture": {"refusals": 3, "source": "miniatur-refusals"}}},
            "'miniatur-refusals': no such file .* did you mean 'miniature-refusals'",
        ),
    ],
)
@pytest.mark.parametrize("planned", [True, False])
def test_an_unknown_name_is_refused_before_anything_is_written(
    changes: dict[str, Any], said: str, planned: bool, make: Make, tmp_path: Path
) -> None:
    with pytest.raises(ResponseTuningError, match=said):
        if planned:
            plan_experiment(make(**changes), quiet())
        else:
            run_experiment(make(**changes), tmp_path / "run", quiet())
    assert list(tmp_path.iterdir()) == []


def test_a_benchmark_without_its_judge_is_refused_before_any_tuning(
    make: Make, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "Name a bird."}\n')
    experiment = make(benchmarks=["grades"], grade={"paths": {"prompts": str(prompts)}})
    with pytest.raises(ConfigError, match=r"^grades needs a judge that answers in digits"):
        run_experiment(experiment, tmp_path / "run", quiet())
    assert [*tmp_path.iterdir()] == [prompts]
    out = StringIO()
    plan_experiment(experiment, Console(file=out, width=300))
    assert out.getvalue().splitlines()[-1].startswith("before it can run: grades needs a judge")


def test_a_plan_needs_no_key_and_says_which_one_the_run_needs(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = {"model": "m", "base_url": "https://server.example/v1"}
    experiment = make(data={"refinement": {"engine": "openai", "settings": server}})
    said = "variable OPENAI_API_KEY is not set"
    with pytest.raises(EngineError, match=said):
        run_experiment(experiment, tmp_path / "run", quiet())
    out = StringIO()
    plan_experiment(experiment, Console(file=out, width=300))
    *_, last = out.getvalue().splitlines()
    assert last.startswith("before it can run: ")
    assert said in last
    assert last.endswith("--set data.refinement.settings.api_key_env=...")


def test_prompts_beyond_the_context_are_refused_before_any_tuning(
    make: Make, tmp_path: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    lines = [{"prompt": "Name a bird."}, {"id": "long", "prompt": "Name a bird. " * 200}]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    experiment = make(benchmarks=["prompts"], grade={"paths": {"prompts": str(prompts)}})
    said = "^prompts: the prompt of long has .* tokens under template 'tulu', which leaves no room"
    with pytest.raises(ConfigError, match=said):
        run_experiment(experiment, tmp_path / "run", quiet())
    assert not (tmp_path / "run/rt").exists()
    with pytest.raises(ConfigError, match=said):
        plan_experiment(experiment, quiet())


def test_a_prompt_without_an_answer_stops_the_run_until_it_is_asked_again(
    make: Make, tmp_path: Path
) -> None:
    def dead(self: HfEngine, requests: Any, sampling: Any) -> Iterator[Completion]:
        return (failed(self, request, sampling, "out of paper") for request in requests)

    run = tmp_path / "run"
    only_base = {"base": {"finetune": None}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HfEngine, "complete", dead)
        with pytest.raises(EngineError) as caught:
            run_experiment(make(variants=only_base), run, quiet())
    assert f"{ITEMS} of {ITEMS} prompts of {BENCHMARK} got no answer" in str(caught.value)
    assert "out of paper" in str(caught.value)
    assert not list(run.rglob("generate/*"))
    run_experiment(make(variants=only_base), run, quiet())
    assert read_json(run / "manifest.json")["status"] == "finished"


def test_a_model_that_is_not_tuned_is_asked_at_the_revision_that_the_others_are_tuned_from(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[EngineConfig] = []

    def note(engine: str, config: EngineConfig) -> NoReturn:
        asked.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr("response_tuning.generate.open_engine", note)
    monkeypatch.setattr("response_tuning.workflows.run.checked", cells)  # the hub is not asked
    monkeypatch.setattr("response_tuning.models.inference.check_loadable", lambda *_: None)
    monkeypatch.setattr("response_tuning.models.location.identity", lambda *_: "identity")
    experiment = make(
        variants={"base": {"finetune": None}},
        finetune={"base_model": "an/id", "base_revision": "step-1000"},
    )
    with pytest.raises(KeyboardInterrupt):
        run_experiment(experiment, tmp_path / "run", quiet())
    assert [(config.revision, config.device, config.template) for config in asked] == [
        ("step-1000", "cpu", "tulu")
    ]


def test_answers_that_are_drawn_differ_from_seed_to_seed(make: Make, tmp_path: Path) -> None:
    run = tmp_path / "run"
    sampled = make(variants={"base": {"finetune": None}}, generate={"temperature": 1.0})
    run_experiment(sampled, run, quiet())
    said = [
        [c.response for c in read_jsonl(run / cell / "generate" / f"{BENCHMARK}.jsonl", Completion)]
        for cell in ("base/seed-0", "base/seed-1")
    ]
    assert said[0] != said[1]


def test_a_report_can_be_written_again_and_is_the_same(run: Path) -> None:
    before = contents(run)
    shutil.rmtree(run / "report")
    report_run(run, quiet())
    assert contents(run) == before


def test_the_report_of_an_earlier_versions_run_can_be_written_again(run: Path) -> None:
    results = (run / "report" / "results.csv").read_bytes()
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["experiment"]["report"] = {
        "baselines": ["base"], "margin": 0.1, "equivalence": ["strict"], "confidence": 0.95,
        "resamples": 10_000, "seed": 0,
    }  # fmt: skip
    (run / "manifest.json").write_text(json.dumps(manifest))
    report_run(run, quiet())
    assert (run / "report" / "results.csv").read_bytes() == results
    lines = (run / "report" / "comparisons.csv").read_text(encoding="utf-8").splitlines()
    rows = [*csv.DictReader(lines)]
    assert {row["margin"] for row in rows if row["metric"] == "strict"} == {"0.1"}


def test_the_report_says_from_the_manifests_whether_two_arms_are_twins(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["experiment"]["report"]["primary"] = [
        {"variant": "rt", "baseline": "base", "metric": "strict"}
    ]
    (run / "manifest.json").write_text(json.dumps(manifest))
    report_run(run, quiet())
    text = (run / "report" / "report.md").read_text(encoding="utf-8")
    assert "- rt and base are no twins: base has no tuned model here." in text
    assert "- Two seeds: no information on how much training varies" in text


def test_a_cell_says_what_it_was_tuned_on(make: Make, run: Path) -> None:
    tuned, _, base, _ = cells(make())
    training = cell_training(tuned, run)
    assert training is not None
    assert (training.objective, training.twins) == ("response-tuning", ())
    assert (training.kept, training.steps) == (64, 16)
    assert training.supervised_tokens > 64
    assert cell_training(base, run) is None


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_holds_no_run_has_no_report(there: bool, run: Path, tmp_path: Path) -> None:
    folder = run / "rt" / "seed-0" / "finetune" if there else tmp_path / "nowhere"
    with pytest.raises(ResponseTuningError) as caught:
        report_run(folder, quiet())
    assert str(folder) in str(caught.value)
    said = "give the folder of an 'rtune run'" if there else "manifest.json"
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_plan_names_every_variant_and_counts_what_there_is_to_do(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    variants = {
        "base": {"finetune": None},
        "rt": {"doses": [0, 20]},
        "fresh": {"finetune": {"random_init": True}},
    }
    experiment = make(
        variants=variants, finetune={"base_model": "miniature"}, data={"mixture": MADE}
    )
    plan_experiment(experiment, Console(width=80))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:7] == [
        "base: miniature, as it is",
        "rt-0: response-tuning (full) of miniature on 64 of miniature",
        "rt-20: response-tuning (full) of miniature on 64 of miniature and 20 refusals",
        "fresh: response-tuning (full) of miniature with fresh weights on 64 of miniature",
        "seeds: 0, 1",
        f"benchmarks: {BENCHMARK} ({ITEMS} items)",
        f"8 cells: 6 to tune, {7 * ITEMS:,} answers",  # the base answers once
    ]
    assert [line.split(":")[0] for line in lines[7:9]] == ["cost", "tokens"]
    assert lines[9:] == [
        "power on miniature-unseen-validation (10 clusters of prompts): at best, a difference of "
        "44.5 points (if two variants disagree on 10%) or 60.2 points (if two variants disagree on "
        "50%) is found 80 % of the time",
        "power counts prompts alone, not how much training varies (2 seeds)",
    ]


def test_a_plan_names_the_variant_and_the_key_of_a_missing_source(make: Make) -> None:
    variants = {"rt": {}, "mine": {"data": {"source": "data/none.jsonl"}}}
    with pytest.raises(DataError) as caught:
        plan_experiment(make(variants=variants, report={"baselines": []}), quiet())
    assert str(caught.value).startswith(
        "variant 'mine': data.source: 'data/none.jsonl': no such file or folder, and unknown "
    )


def test_the_variants_of_the_report_know_their_series(make: Make, tmp_path: Path) -> None:
    experiment = make(variants={"base": {"finetune": None}, "rt": {"doses": [5, 9]}})
    found = _variants(experiment, checked(experiment), tmp_path)
    variants = [(v.name, v.series, v.dose) for v in found]
    assert variants == [("base", "", None), ("rt-5", "rt-5", 5), ("rt-9", "rt-5", 9)]


def test_the_folder_of_a_cell_can_be_shown_with_its_data(
    uninterrupted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    show_run(uninterrupted / "rt" / "seed-0" / "finetune", Console(width=100), jsonl=True)
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(row["status"] == "kept" for row in rows) == 64
