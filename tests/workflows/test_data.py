import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fsspec
import pytest

from response_tuning.artifacts import Completion, Example, Request, Sampling, read_json, read_jsonl
from response_tuning.data.refinement.prompt import ask_for_rewrite
from response_tuning.generate.engines.scripted import ScriptedEngine
from response_tuning.journals import Journal
from response_tuning.rewriting import Material

Run = Callable[..., Any]
RECIPES = Path(__file__).parents[2] / "recipes"
ROWS = [
    {"prompt": "What is tea?", "response": "Leaves in hot water."},
    {"prompt": "Is it good?", "response": "It is."},
    {"prompt": "How do I make it?", "response": "Boil water first."},
]
ARTICLES = [
    "The town hall opened again on Monday after two years of repairs. Visitors came early.",
    "A farmer found an old coin in her field this week. She will give it to the museum.",
]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path("news").mkdir()
    for number, text in enumerate(ARTICLES):
        Path("news", f"{number}.txt").write_text(text)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the scripted refiner is asked each prompt."""
    prompts: Counter[str] = Counter()
    complete = ScriptedEngine.complete

    def counted(
        self: ScriptedEngine, requests: Sequence[Request], sampling: Sampling
    ) -> Iterator[Completion]:
        prompts.update(request.prompt[-1].content for request in requests)
        return complete(self, requests, sampling)

    monkeypatch.setattr(ScriptedEngine, "complete", counted)
    return prompts


def write_table(examples: list[Example], material: Material) -> None:
    lines = [
        {
            "prompt": ask_for_rewrite(example, material).prompt[0].content,
            "response": f"Short.\nRefined response:\nBetter: {example.response}",
        }
        for example in examples
    ]
    Path("table.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def rows_as_examples() -> list[Example]:
    return [
        Example(row=number, instruction=row["prompt"], response=row["response"])
        for number, row in enumerate(ROWS)
    ]


def miniature(name: str, base: Path, source: str, variants: Sequence[str]) -> list[object]:
    """The command that runs a recipe of the paper on a tiny model with a scripted refiner."""
    settings = [
        "preset=small",
        f"finetune={{base_model: {base}, device: cpu, method: full, max_steps: 1, window: 64}}",
        "generate.max_new_tokens=2",
        "benchmarks=[miniature-refusal-validation]",
        "grade={limit: 2}",
        "report={}",
        *(f"variants.{arm}.reference=null" for arm in ("it", "it-refined") if variants[1:]),
        f"data.source={source}",
        *(f"variants.{name}.data.refinement.engine=scripted" for name in variants),
        *(f"variants.{name}.data.refinement.settings={{table: table.jsonl}}" for name in variants),
    ]
    sets = [word for text in settings for word in ("--set", text)]
    return ["run", RECIPES / name, "--out", "run", *sets]


def responses(variant: str) -> list[str]:
    path = Path("run", variant, "seed-0", "data", "examples.jsonl")
    return [example.response for example in read_jsonl(path, Example)]


def test_the_refinement_recipe_runs_to_its_report_and_asks_the_refiner_once(
    rtune: Run, miniature_base: Path, asked: Counter[str]
) -> None:
    write_table(rows_as_examples(), "response")
    refined = ["rt-refined", "it-refined"]
    command = miniature("paper/refinement.yaml", miniature_base, "rows.jsonl", refined)
    assert rtune(*command).code == 0
    assert Path("run/report/report.html").exists()
    originals = [row["response"] for row in ROWS]
    assert responses("rt") == responses("it") == originals
    assert responses("rt-refined") == responses("it-refined") == [f"Better: {r}" for r in originals]
    assert asked.total() == len(ROWS), "the second variant has the replies of the first"
    for variant in refined:
        source = Path("run", variant, "seed-0", "source")
        assert (source / "page.html").exists()
        assert len(Journal(source / "journal.jsonl", Completion)) == len(ROWS)
        audit = read_json(source.parent / "data" / "audit.json")
        assert audit["source"]["path"] == str(Path("rows.jsonl").resolve())
        assert audit["refinement"]["template"] == "scripted"
    resolved = read_json(Path("run/manifest.json"))["experiment"]["variants"]["rt-refined"]["data"]
    assert resolved["refinement"]["settings"] == {"table": "table.jsonl"}
    again = rtune(*command)
    assert again.code == 0
    assert asked.total() == len(ROWS)


def test_the_news_recipe_runs_to_its_report(
    rtune: Run, miniature_base: Path, asked: Counter[str]
) -> None:
    passages = [Example(row=number, response=text) for number, text in enumerate(ARTICLES)]
    write_table(passages, "passage")
    short = ["--set", "data.extraction.min_words=5", "--set", "data.max_examples=2"]
    name = "paper/news.yaml"
    assert rtune(*miniature(name, miniature_base, "news", ["rt-rewritten"]), *short).code == 0
    assert Path("run/report/report.html").exists()
    assert responses("rt") == ARTICLES
    assert responses("rt-rewritten") == [f"Better: {text}" for text in ARTICLES]
    assert asked.total() == len(ARTICLES)
    audit = read_json(Path("run/rt-rewritten/seed-0/data/audit.json"))
    assert audit["extraction"]["passages"] == audit["examples"] == len(ARTICLES)
    assert audit["source"]["path"] == str(Path("news").resolve())


def test_a_recipe_does_what_the_commands_do_one_after_the_other(
    rtune: Run, miniature_base: Path
) -> None:
    write_table(rows_as_examples(), "response")
    recipe = Path("recipe.yaml")
    recipe.write_text(
        "data: {source: rows.jsonl, curation: {restatements: strip}, refinement: "
        "{engine: scripted, settings: {table: table.jsonl}}}\n"
        f"finetune: {{base_model: {miniature_base}, method: full, device: cpu, max_steps: 1}}\n"
    )
    assert rtune("finetune", "--recipe", recipe, "--out", "tuned").code == 0
    scripted = ["--engine", "scripted", "--table", "table.jsonl"]
    assert rtune("data", "refine", "rows.jsonl", "--out", "refined", *scripted).code == 0
    by_hand = ["data", "refined/examples.jsonl", "--restatements", "strip", "--out", "prepared"]
    assert rtune(*by_hand).code == 0
    rows = Path("tuned.training")
    for name in ("examples.jsonl", "dropped.jsonl"):
        assert (rows / "data" / name).read_bytes() == Path("prepared", name).read_bytes()
    for name in ("examples.jsonl", "refinements.jsonl", "refinement.json"):
        assert (rows / "source" / name).read_bytes() == Path("refined", name).read_bytes()


def test_a_dry_run_asks_no_refiner_and_writes_nothing(
    rtune: Run, miniature_base: Path, asked: Counter[str], caplog: pytest.LogCaptureFixture
) -> None:
    write_table(rows_as_examples(), "response")
    recipe = Path("recipe.yaml")
    refinement = "{engine: scripted, settings: {table: table.jsonl}}"
    recipe.write_text(
        f"data: {{source: rows.jsonl, refinement: {refinement}}}\n"
        f"finetune: {{base_model: {miniature_base}, method: full, device: cpu}}\n"
    )
    before = sorted(Path().rglob("*"))
    result = rtune("finetune", "--recipe", recipe, "--dry-run")
    assert result.code == 0
    assert "responses are shown before their refinement" in caplog.text
    plan = rtune(
        *miniature(
            "paper/refinement.yaml", miniature_base, "rows.jsonl", ["rt-refined", "it-refined"]
        ),
        "--dry-run",
    )
    assert "rows.jsonl, refined by scripted\n" in plan.out
    assert not asked
    assert sorted(Path().rglob("*")) == before


def test_a_response_without_a_reply_stops_a_run_before_anything_is_tuned(
    rtune: Run, miniature_base: Path
) -> None:
    write_table(rows_as_examples()[:2], "response")
    refined = ["rt-refined", "it-refined"]
    result = rtune(*miniature("paper/refinement.yaml", miniature_base, "rows.jsonl", refined))
    assert result.code == 2
    assert "1 got no reply, the first because: the table has no response" in result.err
    assert result.err.count("\n") == 1
    assert not Path("run/rt-refined/seed-0/finetune").exists()
    assert Path("run/rt-refined/seed-0/source/journal.jsonl").exists(), "replies cost money"


def test_too_few_passages_are_an_error_in_the_words_of_a_recipe(
    rtune: Run, miniature_base: Path
) -> None:
    command = miniature("paper/news.yaml", miniature_base, "news", [])
    unrefined = ["--set", "variants={rt: {}}", "--set", "report.baselines=[]"]
    result = rtune(*command, *unrefined)
    assert result.code == 2
    assert "--set data.extraction.min_words=..." in result.err
    assert not Path("run/rt/seed-0/data").exists()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("refinement.settings={modle: m}", "data.refinement.settings: unknown key 'modle': did"),
        ("refinement.retrys=1", "data.refinement: unknown key 'retrys': did you mean 'retries'"),
        ("refinement.engine=scriptd", "unknown engine 'scriptd': did you mean 'scripted'"),
        ("refinement={engine: scripted}", "engine 'scripted': no such table: None"),
        (
            "refinement={engine: hf}",
            "engine 'hf': give it a model folder, a .gguf file",
        ),
        ("extraction.min_word=1", "data.extraction: unknown key 'min_word': did you mean"),
        ("extraction={min_words: 9, max_words: 8}", "min_words 9 is above max_words 8"),
    ],
)
def test_a_refiner_that_cannot_be_asked_is_refused_in_a_dry_run(
    rtune: Run, miniature_base: Path, setting: str, message: str
) -> None:
    write_table(rows_as_examples(), "response")
    refined = ["rt-refined", "it-refined"]
    command = miniature("paper/refinement.yaml", miniature_base, "rows.jsonl", refined)
    result = rtune(*command, "--set", f"variants.it-refined.data.{setting}", "--dry-run")
    assert result.code == 2
    assert message in result.err
    assert result.err.count("\n") == 1


def test_examples_go_to_an_address_and_come_from_one(
    rtune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESPONSE_TUNING_CACHE", str(tmp_path / "cache"))
    storage = fsspec.filesystem("memory")
    try:
        done = rtune("data", "prepare", "rows.jsonl", "--out", "memory://kettle/data")
        assert done.code == 0, done.err
        assert done.out.splitlines()[-1] == "uploaded to memory://kettle/data"
        assert rtune("data", "prepare", "rows.jsonl", "--out", "local").code == 0
        names = ("examples.jsonl", "dropped.jsonl", "audit.json", "complete")
        for name in names:
            assert storage.cat_file(f"/kettle/data/{name}") == Path("local", name).read_bytes()
        assert not any(path.name == "examples.jsonl" for path in Path("memory:").rglob("*"))
        again = rtune("data", "prepare", "memory://kettle/data/examples.jsonl", "--out", "again")
        assert again.code == 0, again.err
        examples = Path("again", "examples.jsonl").read_bytes()
        assert examples == Path("local", "examples.jsonl").read_bytes()
        # Another file at the address is another source, and the same one is not.
        sealed = Path("again", "complete").stat().st_mtime_ns
        rtune("data", "prepare", "memory://kettle/data/examples.jsonl", "--out", "again")
        assert Path("again", "complete").stat().st_mtime_ns == sealed
        storage.pipe_file("/kettle/data/examples.jsonl", b'{"response": "new"}\n')
        rtune("data", "prepare", "memory://kettle/data/examples.jsonl", "--out", "again")
        assert json.loads(Path("again", "examples.jsonl").read_text())["response"] == "new"
    finally:
        storage.rm("/kettle", recursive=True)


def test_a_number_of_processes_that_cannot_be_is_refused(rtune: Run) -> None:
    done = rtune("data", "prepare", "rows.jsonl", "--out", "out", "--processes", "-1")
    assert done.code == 2
    assert done.err == "rtune: --processes -1: give 1 or more, or 0 for all processors\n"
    assert not Path("out").exists()
