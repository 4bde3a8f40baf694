import inspect
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

import response_tuning as rt
from response_tuning.errors import DataError
from response_tuning.folders import locked, locked_file
from response_tuning.workflows import library
from response_tuning.workflows.keywords import in_keywords

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "library.md"
ROWS = [
    {"instruction": "What is tea?", "response": "Leaves in hot water."},
    {"instruction": "How long?", "response": "Three minutes, and then you take the leaves out."},
    {"instruction": "Why?", "response": ""},
]
SMALL: dict[str, Any] = {"method": "full", "max_steps": 2, "window": 64, "device": "cpu"}
BENCHMARK = "miniature-seen-validation"


@pytest.fixture(autouse=True)
def _desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    Path("prompts.jsonl").write_text('{"prompt": "Hi"}\n{"prompt": "Ho"}\n')
    Path("table.jsonl").write_text('{"prompt": "Hi", "response": "Hello."}\n')


def test_prepare_returns_what_the_audit_counts() -> None:
    assert rt.prepare("answers.jsonl", "d") == library.Prepared(
        folder=Path("d"),
        file=Path("d/examples.jsonl"),
        examples=2,
        rows=3,
        rows_kept=2,
        dropped={"empty response": 1},
        flagged={},
    )
    assert Path("d/examples.jsonl").read_text().count("\n") == 2


def test_prepare_takes_keywords_a_config_or_both() -> None:
    config = rt.DataConfig(source="answers.jsonl", max_examples=1)
    assert rt.prepare(Path("answers.jsonl"), Path("a"), max_examples=1).examples == 1
    assert rt.prepare(config, "b").examples == 1
    assert rt.prepare(config, "c", max_examples=2).examples == 2


VERBS: Any = rt
"""Without types, as in a notebook."""


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (
            lambda: VERBS.prepare(3, "x"),
            "prepare: source: expected a path or name, a config or a dict",
        ),
        (lambda: VERBS.prepare("answers.jsonl", 3), r"prepare: out: expected a path \(got a int\)"),
        (lambda: VERBS.finetune(data=["answers.jsonl"], out="x"), "finetune: data: .*a list"),
        (lambda: VERBS.finetune({"data": {}}, "x"), r"finetune: recipe: expected a path"),
        (
            lambda: VERBS.generate(None, "x.jsonl"),
            r"generate: prompts: expected a path \(got None\)",
        ),
        (lambda: VERBS.generate("prompts.jsonl", "x", 3), "generate: model: .*a int"),
        (lambda: VERBS.generate("prompts.jsonl", "x", sampling=3), "generate: sampling: .*a int"),
        (lambda: VERBS.grade(BENCHMARK, "x", "y", 3), "grade: config: expected a config or a dict"),
        (lambda: VERBS.report("nope"), "nope: no run there"),
        (
            lambda: VERBS.prepare({}, "x"),
            "prepare: source: not given; give it as a keyword, or in a",
        ),
        (
            lambda: VERBS.finetune(data="answers.jsonl", out="x"),
            ".*base_model.*give it as a keyword",
        ),
    ],
)
def test_an_argument_of_a_wrong_type_is_one_line(call: Any, line: str) -> None:
    with pytest.raises(rt.ResponseTuningError, match=f"^{line}"):
        call()


def test_generate_takes_its_sampling_as_a_dict() -> None:
    done = rt.generate(
        "prompts.jsonl",
        "a.jsonl",
        engine="scripted",
        table="table.jsonl",
        sampling={"max_new_tokens": 3},
    )
    assert done.prompts == 2


def test_the_verbs_print_nothing_and_a_console_shows_what_the_command_prints(
    rtune: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    rt.prepare("answers.jsonl", "d")
    assert capsys.readouterr() == ("", "")
    rt.prepare("answers.jsonl", "d", console=Console())
    assert capsys.readouterr().out == rtune("data", "answers.jsonl", "--out", "d").out != ""


def test_finetune_takes_keywords_a_recipe_or_its_path(
    tiny_base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    by_keywords = rt.finetune(data="answers.jsonl", base_model=tiny_base, out="t", **SMALL)
    assert (by_keywords.folder, by_keywords.examples, by_keywords.steps) == (Path("t"), 2, 2)
    last = json.loads(Path("t/metrics.jsonl").read_text().splitlines()[-1])
    assert (by_keywords.loss, by_keywords.held_out_loss) == (last["loss"], None)
    recipe = rt.Recipe(
        data=rt.DataConfig(source="answers.jsonl"),
        finetune=rt.FinetuneConfig(base_model=str(tiny_base), **SMALL),
    )
    # All three are one run, so that the folder matches and nothing is trained again.
    written = Path("t/model.safetensors").stat().st_mtime_ns
    assert rt.finetune(recipe, "t") == by_keywords
    Path("r.yaml").write_text(json.dumps(recipe.model_dump(mode="json", exclude_unset=True)))
    assert rt.finetune("r.yaml", "t") == by_keywords
    assert Path("t/model.safetensors").stat().st_mtime_ns == written
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]
    with pytest.raises(rt.ResponseTuningError, match="holds another run: learning_rate was"):
        rt.finetune(recipe, "t", learning_rate=1e-3)


def test_generate_and_grade_return_paths_and_numbers() -> None:
    generated = rt.generate("prompts.jsonl", "c.jsonl", engine="scripted", table="table.jsonl")
    assert generated == library.Generated(Path("c.jsonl"), prompts=2, errors=1, filtered=0)
    asked = rt.generate(BENCHMARK, "b.jsonl", "miniature", template="tulu", max_new_tokens=2)
    assert (asked.prompts, asked.errors) == (376, 0)
    graded = rt.grade(BENCHMARK, "b.jsonl", "s.jsonl")
    assert graded.file == Path("s.jsonl")
    assert graded.rates_known
    assert graded.items["stopped"] == 376
    assert graded.means["stopped"] == 0.0  # no answer has two tokens
    assert graded.scores == sum(graded.items.values())
    assert graded.scores == Path("s.jsonl").read_text().count("\n")


def test_generate_takes_config_objects_which_keywords_change() -> None:
    engine = rt.EngineConfig(table=Path("table.jsonl"))
    sampling = rt.Sampling(max_new_tokens=3, temperature=1.0)
    generated = rt.generate(
        "prompts.jsonl", "c.jsonl", engine, engine="scripted", sampling=sampling, seed=7
    )
    assert generated.errors == 1
    drawn = json.loads(Path("c.jsonl").read_text().splitlines()[0])["sampling"]
    assert (drawn["max_new_tokens"], drawn["temperature"], drawn["seed"]) == (3, 1.0, 7)


def test_report_returns_the_files_of_a_report(
    rtune: Any, miniature_base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Path("r.yaml").write_text(
        "benchmarks: [miniature-refusal-validation]\n"
        f"finetune: {{base_model: {miniature_base}, device: cpu}}\n"
        "generate: {max_new_tokens: 2}\n"
        "variants: {base: {finetune: null}}\n"
    )
    assert rtune("run", "r.yaml", "--out", "run").code == 0
    before = Path("run/report/results.csv").read_bytes()
    Path("run/report/results.csv").unlink()
    reported = rt.report("run")
    assert reported.rates_known
    assert reported.results.read_bytes() == before
    assert reported.page.exists()
    assert reported.comparisons.exists()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rt.prepare("no.jsonl", "d"), "'no.jsonl': no such file or folder"),
        (lambda: rt.prepare("answers.jsonl", "d", max_exampels=3), "max_exampels"),
        (lambda: rt.prepare("answers.jsonl", "."), "answers.jsonl is read from it"),
        (lambda: rt.finetune(data="answers.jsonl", base_model="b"), "finetune needs out="),
        (lambda: rt.finetune(data="answers.jsonl", out="t"), "base_model: not given"),
        (lambda: rt.finetune("no.yaml", "t"), "no.yaml: cannot be read"),
        (
            lambda: rt.finetune(out="t", data="answers.jsonl", base_model="b", epochs=0),
            "finetune.epochs|epochs: Input should be greater than 0",
        ),
        (
            lambda: rt.finetune(out="t", data="answers.jsonl", base_model="b", preset="papr"),
            "unknown preset 'papr': did you mean 'paper'",
        ),
        (
            lambda: rt.generate("prompts.jsonl", "c.jsonl", max_new_token=3),
            "unknown setting of generate 'max_new_token': did you mean 'max_new_tokens'",
        ),
        (lambda: rt.generate("prompts.jsonl", "c.jsonl", engine="hff"), "unknown engine 'hff'"),
        (lambda: rt.grade("tea", "prompts.jsonl", "s.jsonl"), "unknown benchmark 'tea'"),
        (lambda: rt.grade(BENCHMARK, "prompts.jsonl", "s.jsonl", limt=3), "limt"),
        (lambda: rt.report("nowhere"), "nowhere: no run there"),
    ],
)
def test_what_the_caller_can_fix_is_one_line_and_writes_nothing(call: Any, message: str) -> None:
    before = sorted(Path().rglob("*"))
    with pytest.raises(rt.ResponseTuningError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
    assert sorted(Path().rglob("*")) == before


def test_a_preset_beside_a_recipe_object_is_refused() -> None:
    recipe = rt.Recipe(
        data=rt.DataConfig(source="answers.jsonl"), finetune=rt.FinetuneConfig(base_model="b")
    )
    with pytest.raises(rt.ResponseTuningError, match="preset has no effect"):
        rt.finetune(recipe, "t", preset="paper")


def test_a_place_in_use_is_refused_to_the_verbs_as_to_the_commands() -> None:
    with (
        locked(Path("d")),
        pytest.raises(rt.ResponseTuningError, match="another rtune is using it"),
    ):
        rt.prepare("answers.jsonl", "d")
    with (
        locked_file(Path("c.jsonl")),
        pytest.raises(rt.ResponseTuningError, match="another rtune is using it"),
    ):
        rt.generate("prompts.jsonl", "c.jsonl", engine="scripted", table="table.jsonl")


@pytest.mark.parametrize("verb", ["prepare", "finetune", "generate", "grade", "report"])
def test_a_verb_is_documented_and_has_its_signature(verb: str) -> None:
    public, ours = getattr(rt, verb), getattr(library, verb)
    assert public.__doc__ == ours.__doc__
    assert inspect.signature(public) == inspect.signature(ours)
    assert f"`{verb}(" in PAGE.read_text(encoding="utf-8")


def test_a_verb_stays_callable_after_its_package_is_imported() -> None:
    import response_tuning.finetune.trainer as trainer
    import response_tuning.generate.engine

    assert trainer.ResponseTrainer is rt.ResponseTrainer
    for verb in (rt.finetune, rt.generate):
        assert callable(verb)
    assert response_tuning.generate.engine.ENGINES is rt.ENGINES  # type: ignore[attr-defined]


def test_the_page_about_the_library_runs(
    tiny_base: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    page = PAGE.read_text(encoding="utf-8")
    code = "".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL))
    answers = [{"response": f"Give this tea {n} minutes, and then take it out."} for n in range(9)]
    Path("answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    rt.generate(BENCHMARK, "facts.jsonl", "miniature", template="tulu", max_new_tokens=2)
    code = code.replace("BASE", str(tiny_base)).replace("tea-facts", BENCHMARK)
    code = code.replace("epochs=20", "epochs=2").replace("max_steps=20", "max_steps=2")
    exec(compile(code, str(PAGE), "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("9 examples, 2 steps, loss ")
    assert printed[1:3] == ["2 prompts, 0 errors: completions.jsonl", "8 of 9 rows kept"]
    assert printed[3].endswith(" of 376 items")
    assert "learning_rate" in printed[4]


def test_errors_name_keywords_and_not_flags(tiny_base: Path) -> None:
    rt.finetune(data="answers.jsonl", base_model=tiny_base, out="t", **SMALL)
    advice = "choose another 'out', extend it with 'continue_from' t, or delete"
    with pytest.raises(rt.ResponseTuningError, match=advice) as error:
        rt.finetune(data="answers.jsonl", base_model=tiny_base, out="t", **SMALL | {"max_steps": 3})
    assert "--" not in str(error.value)
    with pytest.raises(rt.ResponseTuningError, match="t: holds a tuned model, not a run"):
        rt.report("t")


@pytest.mark.parametrize(
    ("flags", "keywords"),
    [
        ("use --method lora here", "use 'method' lora here"),
        ("a smaller --window-size, or --x", "a smaller 'window_size', or --x"),
        ("use --set finetune.merge=true", "use 'finetune.merge'=true"),
        ("a -- b, a--b, ---", "a -- b, a--b, ---"),
    ],
)
def test_a_flag_in_a_message_becomes_a_keyword(flags: str, keywords: str) -> None:
    with pytest.raises(DataError) as error, in_keywords():
        raise DataError(flags)
    assert str(error.value) == keywords
