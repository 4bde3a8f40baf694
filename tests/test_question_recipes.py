"""Every recipe of an open question: it says what it asks, can be planned, and runs in small."""

import csv
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from response_tuning.artifacts import read_json
from response_tuning.miniature import resolved
from response_tuning.templates import install
from response_tuning.templates.chat import Chat
from response_tuning.workflows.cost import Cost
from response_tuning.workflows.experiment import Cell, cells, read_experiment

ROOT = Path(__file__).parents[1]
QUESTIONS = sorted((ROOT / "recipes" / "questions").glob("*.yaml"))
TAGS = read_experiment(ROOT / "recipes/questions/tags.yaml")
NEEDS = {"Question", "Differs", "Cost"}
Run = Callable[..., Any]


def in_small(path: Path, base: Path) -> list[str]:
    """Settings with which a recipe runs in seconds: a tiny base, few rows, one step, two axes."""
    found = [
        *("seeds=[0]", "threads=1", f"finetune.base_model={base}", "finetune.max_steps=1"),
        *("finetune.warmup_steps=0", "finetune.examples_per_step=4", "generate.max_new_tokens=2"),
        *("grade.limit=2", "benchmarks=[miniature-unseen]", "data.max_examples=6"),
    ]
    recipe = read_experiment(path)
    if path.stem == "when-it-works":
        found += [f"grid.bases={{tiny: {base}, again: {base.parent / 'again'}}}"]
        found += ["grid.templates=[roles, tulu]"]
    elif path.stem == "how-many":
        found += ["grid.data.max_examples=[4,6]"]
    elif path.stem == "tags":
        found += ["grid.templates=[roles, recipes/questions/common/no-tags.jinja]"]
    elif path.stem == "rank":
        found += [f"grid.methods={{full: full, rank-4: {recipe.grid['methods']['rank-4']}}}"]
    elif "finetune.epochs" in recipe.grid:
        found += ["grid.finetune.epochs=[1,2]"]
    for name, variant in recipe.variants.items():
        if "max_examples" in variant.data:
            found.append(f"variants.{name}.data.max_examples=6")
    return found


def few(every: Sequence[Cell]) -> list[Cell]:
    """The last cell that is tuned and the first that is not: a tuned one takes seconds."""
    tuned = [cell for cell in every if cell.tuned]
    return [*[cell for cell in every if not cell.tuned][:1], tuned[-1]]


@pytest.fixture(scope="module")
def base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests' own model, twice: the second is another base to a grid."""
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("bases")
    for name, rope in (("tiny", 10_000.0), ("again", 9_000.0)):
        model = AutoModelForCausalLM.from_pretrained(tiny_base)
        model.config.rope_theta = rope
        model.save_pretrained(folder / name)
        for file in tiny_base.glob("tokenizer*"):
            (folder / name / file.name).write_bytes(file.read_bytes())
    return folder / "tiny"


@pytest.mark.parametrize("path", QUESTIONS, ids=lambda path: path.stem)
def test_a_question_says_what_it_asks_what_differs_and_what_it_costs(path: Path) -> None:
    head = path.read_text(encoding="utf-8").partition("\nvariants")[0]
    found = re.findall(r"^# (\w+): +\S", head, flags=re.MULTILINE)
    assert {*found} >= NEEDS
    assert f"rtune run recipes/questions/{path.name}" in head


@pytest.mark.parametrize("path", QUESTIONS, ids=lambda path: path.stem)
def test_the_models_that_a_question_costs_are_counted_right(path: Path) -> None:
    head = path.read_text(encoding="utf-8")
    found = re.search(r"Cost: +(\d+) (?:models|tuned)", head)
    assert found
    assert int(found[1]) == sum(cell.tuned for cell in cells(read_experiment(path)))


@pytest.mark.parametrize("template", TAGS.grid["templates"])
def test_a_response_without_its_instruction_follows_something_in_every_template_of_tags(
    template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    tokenizer = AutoTokenizer.from_pretrained(resolved("miniature"))  # has no BOS
    install(tokenizer, template)
    assert Chat(tokenizer).opening


@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("path", QUESTIONS, ids=lambda path: path.stem)
def test_a_question_runs_to_its_report_in_small(
    path: Path, whole: bool, base: Path, rtune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)  # a template is named by its path in the repository
    settings = in_small(path, base)
    every = cells(read_experiment(path, settings))
    chosen = every if whole else few(every)
    flags = [word for text in settings for word in ("--set", text)]
    flags += [word for cell in chosen for word in ("--only", cell.name)]
    result = rtune("run", path, "--out", tmp_path / "run", *flags)
    assert (result.code, result.err) == (0, "")
    manifest = read_json(tmp_path / "run" / "manifest.json")
    assert manifest["cells"].keys() == {cell.name for cell in chosen}
    with (tmp_path / "run/report/results.csv").open(encoding="utf-8") as lines:
        assert {row["variant"] for row in csv.DictReader(lines)} == {c.variant for c in chosen}


@pytest.mark.parametrize("path", QUESTIONS, ids=lambda path: path.stem)
def test_a_question_can_be_planned_as_it_is(
    path: Path, rtune: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("response_tuning.workflows.plan.cost_of", lambda *_: (Cost(), {}))
    number = len(cells(read_experiment(path)))
    result = rtune("run", path, "--dry-run", "--cells", number)
    assert (result.code, result.err) == (0, "")
    assert f"{number} cells" in result.out
