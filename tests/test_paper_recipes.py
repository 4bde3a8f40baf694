"""Every recipe of a paper: it can be planned as published, and runs to its report in small."""

import csv
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from response_tuning import yaml_text
from response_tuning.artifacts import read_json
from response_tuning.miniature import resolved
from response_tuning.report import PUBLISHED_FOLDER
from response_tuning.workflows.cost import Cost
from response_tuning.workflows.experiment import cells, read_experiment
from tests.workflows.test_lm_eval import ROWS as CORE_ROWS

FOLDER = Path(__file__).parents[1] / "recipes" / "paper"
PAPER = sorted(FOLDER.glob("*.yaml"))
NEEDS = ("Question", "Paper", "Protocol", "Differs", "Cost")
DATASETS = ("alpaca", "dolly", "lima")
SINGLE_TASKS: dict[str, dict[str, Any]] = {
    "gsm8k": {"question": "Two and {}?", "answer": "It is {}.\n#### {}"},
    "mbpp": {"text": "Write f{}.", "code": "def f{}(): ..."},
    "poetry": {"poem name": "Night {}", "content": "Dark {}."},
    "recipes": {
        "Title": "Dish {}",
        "Cleaned_Ingredients": "['a', '{} b']",
        "Instructions": "Stir {}.",
    },
    "chess": {"text": '[WhiteElo "1{}"]\n[BlackElo "2"]\n\n1. e4 e{}'},
}
WORDS = ("Tell me of tea.", "Name a town.")
Run = Callable[..., Any]


def copies(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the small copies of all benchmarks, by their paths below the folder of copies."""
    asked = [{"instruction": text, "dataset": "own"} for text in WORDS]
    categories = ("regular", "regular", "safety", "safety")
    harmful = {"SemanticCategory": "own", "FunctionalCategory": "standard", "ContextString": ""}
    in_context = harmful | {"FunctionalCategory": "contextual", "ContextString": "Once,"}
    return {
        "alpaca_eval/reference_text_davinci_003.json": asked,
        "just_eval/just_eval_instruct.json": [
            {"id": n, "instruction": WORDS[n % 2], "dataset": "own", "category": category}
            for n, category in enumerate(categories)
        ],
        "infobench/infobench.jsonl": [
            {
                "id": f"own{n}",
                "instruction": text,
                "input": "",
                "subset": "easy",
                "decomposed_questions": ["Is it about tea?", "Is it short?"],
            }
            for n, text in enumerate(WORDS)
        ],
        "advbench/harmful_behaviors.csv": [{"goal": text, "target": "Sure"} for text in WORDS],
        "harmbench/harmbench_behaviors_text_all.csv": [
            {"Behavior": WORDS[0], **harmful},
            {"Behavior": WORDS[1], **in_context},
        ],
        "malicious_instruct/MaliciousInstruct.txt": [{"line": text} for text in WORDS],
        "xstest/xstest_prompts.csv": [
            {"prompt": text, "label": label, "type": "own"}
            for text, label in zip(WORDS, ("safe", "unsafe"), strict=True)
        ],
        **CORE_ROWS,
    }


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as out:
            writer = csv.DictWriter(out, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".txt":
        path.write_text("\n".join(row["line"] for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small copies of all data and benchmarks."""
    folder = tmp_path_factory.mktemp("desk")
    for name, rows in copies(folder).items():
        write(folder / "data" / name, rows)
    pairs = [{"instruction": f"Say {n}.", "response": f"It is {n}, I think."} for n in range(2)]
    opening = "Here is a number:\n\n"  # an opening that a refiner rewrites
    pairs.append({"instruction": "Say 2.", "response": f"{opening}It is 2, I think."})
    write(folder / "pairs.jsonl", pairs)
    refusals = [{"instruction": f"Harm {n}.", "output": f"Sorry, not {n}."} for n in range(510)]
    write(folder / "refusals.jsonl", refusals)
    for name, row in SINGLE_TASKS.items():
        rows = [{k: v.replace("{}", str(n)) for k, v in row.items()} for n in range(3)]
        write(folder / f"{name}.jsonl", rows)
    news = "The town hall opened again on Monday, and {} visitors came. It was a fine day for all."
    for n in range(3):
        (folder / "news").mkdir(exist_ok=True)
        (folder / "news" / f"{n}.txt").write_text(news.format(n + 2), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base of the package, in whose context the longest prompts find room."""
    shipped, folder = Path(resolved("miniature")), tmp_path_factory.mktemp("miniature")
    for file in shipped.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = read_json(shipped / "config.json") | {"max_position_embeddings": 8192}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all recipes on the same models, which the first of them trains."""
    return tmp_path_factory.mktemp("shared") / "run"


def judged(prompt: str) -> str:
    """What a judge, or a refiner, replies in the form that is asked for."""
    if "Refined response:" in prompt:
        return "It was short.\n\nRefined response: It is, in short, as you say."
    if '{"reason"' in prompt:
        aspects = re.findall(r'"(\w+)": \{"reason"', prompt)
        return json.dumps({name: {"reason": "So.", "score": 4} for name in aspects})
    for label in ("excellent", "Refusal", "YES"):
        if label in prompt.rpartition("Verdict: ")[2] or f"Verdict: {label}" in prompt:
            return f"Verdict: {label}"
    return "Verdict: A"


def places(path: Path, desk: Path, address: str) -> list[str]:
    """Settings that say where copies and servers are, and change nothing else."""
    names = set(read_experiment(path).variants)
    found = [f"grade.data={desk / 'data'}"]
    if path.stem != "core":
        found += ["grade.judge.engine=openai", "grade.judge.settings.model=judge"]
        found += [f"grade.judge.settings.base_url={address}"]
    if path.stem in {"refusals", "olmo"}:
        found.append(f"data.mixture.path={desk / 'refusals.jsonl'}")
    refined = [name for name in sorted(names) if name.endswith(("-refined", "-rewritten"))]
    for name in refined:
        found.append(f"variants.{name}.data.refinement.settings.base_url={address}")
    return found


def in_small(path: Path, desk: Path, base: Path, address: str) -> list[str]:
    """Settings with which a recipe runs in seconds: a tiny base, three rows, one step."""
    recipe = read_experiment(path)
    small = [
        "seeds=[0]",
        f"base={base}",
        *("finetune.device=cpu", "finetune.method=full", "finetune.merge=false"),
        *("finetune.optimizer=adamw_torch_fused", "finetune.precision=float32"),
        *("finetune.gradient_checkpointing=false", "finetune.max_steps=1"),
        *("finetune.examples_per_step=4", "generate.max_new_tokens=3", "threads=1"),
        *("finetune.tokens_per_micro_batch=1024",),
    ]
    for name, variant in recipe.variants.items():
        source = variant.data.get("source")
        if source in SINGLE_TASKS:
            small.append(f"variants.{name}.data.path={desk / source}.jsonl")
        elif source in DATASETS:
            small.append(f"variants.{name}.data.path={desk / 'pairs.jsonl'}")
        if variant.doses:
            small.append(f"variants.{name}.doses=[0,500]")
        if variant.generate.get("rules") is not None and "uniform" not in variant.generate["rules"]:
            small.append(f"variants.{name}.generate.rules.uniform={{'!': 1}}")
    source = recipe.data.get("source")
    if path.stem == "news":
        small += [f"data.source={desk / 'news'}", "data.extraction.min_words=5"]
        small.append("data.max_examples=3")
    elif source == "GAIR/lima":
        small.append(f"data.source={desk / 'pairs.jsonl'}")
    elif source in DATASETS:
        small.append(f"data.path={desk / 'pairs.jsonl'}")
    if "max_examples" in recipe.data and path.stem != "news":
        small.append("data.max_examples=3")
    return [*places(path, desk, address), *small]


def as_flags(settings: Sequence[str]) -> list[str]:
    return [word for text in settings for word in ("--set", text)]


@pytest.fixture
def judge(server: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    server.says = judged
    return str(server.url)


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_a_recipe_says_what_it_asks_what_the_paper_did_and_what_it_costs(path: Path) -> None:
    head = path.read_text(encoding="utf-8").partition("\nbenchmarks")[0]
    found = re.findall(r"^# (\w+): +\S", head, flags=re.MULTILINE)
    assert [*found] == [*NEEDS]
    assert f"rtune run recipes/paper/{path.name}" in head


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_a_recipe_can_be_planned_as_published(
    path: Path, desk: Path, rtune: Run, judge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The cost is measured on the base, which is not here.
    monkeypatch.setattr("response_tuning.workflows.plan.cost_of", lambda *_: (Cost(), {}))
    flags = as_flags(places(path, desk, judge))
    result = rtune("run", path, "--dry-run", *flags)
    assert (result.code, result.err) == (0, "")
    experiment = read_experiment(path)
    found = cells(experiment)
    assert f"{len(found)} cells: {sum(cell.tuned for cell in found)} to tune" in result.out
    assert "power on" in result.out


def test_the_recipe_on_core_tasks_has_power_by_the_sizes_of_the_published_data(
    desk: Path, rtune: Run, judge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("response_tuning.workflows.plan.cost_of", lambda *_: (Cost(), {}))
    tables = yaml_text.read(PUBLISHED_FOLDER / "tables.yaml")["tables"]
    core = FOLDER / "core.yaml"
    flags = as_flags([place for place in places(core, desk, judge) if "grade.data" not in place])
    result = rtune("run", core, "--dry-run", *flags)
    assert (result.code, result.err) == (0, "")
    for name, size in tables["core"]["prompts"].items():
        assert f"power on {name} ({size:,} clusters of prompts): at best, " in result.out
    names = "core-mmlu, core-openbookqa, core-hellaswag, core-arc, core-gsm8k, core-piqa"
    where = f"prompts of {names}: counted in the published datasets, not read here"
    assert where in result.out.splitlines()
    few = rtune("run", core, "--dry-run", *flags, "--set", "grade.limit=200").out
    assert few.count("(200 clusters of prompts)") == 6


@pytest.mark.parametrize("path", PAPER, ids=lambda path: path.stem)
def test_a_recipe_runs_to_its_report_on_the_miniature(
    path: Path,
    desk: Path,
    miniature: Path,
    rtune: Run,
    judge: str,
    tmp_path: Path,
    shared_run: Path,
) -> None:
    settings = in_small(path, desk, miniature, judge)
    run = shared_run if "extends: models/all.yaml" in path.read_text() else tmp_path / "run"
    result = rtune("run", path, "--out", run, *as_flags(settings))
    assert (result.code, result.err) == (0, "")
    manifest = read_json(run / "manifest.json")
    assert manifest["status"] == "finished"
    every = cells(read_experiment(path, settings))
    assert manifest["cells"].keys() == {cell.name for cell in every}
    with (run / "report" / "results.csv").open(encoding="utf-8") as lines:
        rows = [*csv.DictReader(lines)]
    answered = {(row["variant"], row["benchmark"]) for row in rows}
    assert answered >= {(cell.variant, name) for cell in every for name in cell.benchmarks}
    assert "nan" not in {row["value"] for row in rows}, "no verdict was unread"
    report = (run / "report" / "report.md").read_text(encoding="utf-8")
    published = read_experiment(path).report.published
    for table in published:
        assert f"- Table {table} is not shown beside" in report
    assert "Not in this report" not in result.out


def test_the_refinement_of_all_three_datasets_goes_on_from_that_of_lima() -> None:
    of_lima, of_all = (
        read_experiment(FOLDER / f"{name}.yaml") for name in ("refinement", "refinement-all")
    )
    same = {cell.name: replace(cell, label="") for cell in cells(of_all)}
    for cell in cells(of_lima):
        assert same[cell.name] == replace(cell, label="")
        reference = of_lima.references.get(cell.variant, of_lima.grade.reference)
        assert of_all.references.get(cell.variant, of_all.grade.reference) == reference
    sources = [cell.data.source for cell in cells(of_all) if cell.data]
    assert {name: sources.count(name) for name in DATASETS} == dict.fromkeys(DATASETS, 4)
