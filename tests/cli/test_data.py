import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Example, read_json, read_jsonl
from response_tuning.data.refinement.prompt import ask_for_rewrite

Run = Callable[..., Any]
COMMANDS = ("prepare", "tokenize", "mix", "refine", "extract", "inspect")
ROWS = [
    {"prompt": "What is tea?", "response": "Leaves in hot water, which one drinks."},
    {"prompt": "How do I harm them?", "response": "I'm sorry, but I can't help with that."},
    {"prompt": "Is it good?", "response": "Sure, write to me at jo@teashop.co.uk and I shall say."},
    {"prompt": "Who?", "response": "Jo."},
]


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", ROWS)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def responses(out: Path) -> list[str]:
    return [example.response for example in read_jsonl(out / "examples.jsonl", Example)]


@pytest.mark.parametrize("word", [(), ("prepare",)])
def test_prepare_is_what_is_meant_without_a_word(
    rtune: Run, rows: Path, out: Path, word: tuple[str, ...]
) -> None:
    result = rtune("data", *word, rows, "--out", out)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("4 rows: 4 kept, 4 examples\n")
    assert len(responses(out)) == 4


def test_the_source_may_come_after_the_flags(rtune: Run, rows: Path, out: Path) -> None:
    assert rtune("data", "--max-examples", 2, "--out", out, rows).code == 0
    assert len(responses(out)) == 2


def test_a_source_that_is_called_like_a_command_needs_the_word(
    rtune: Run, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mix").mkdir()
    Path("mix/one.txt").write_text("Tea is good.")
    assert rtune("data", "mix", "--out", out).code == 2
    assert rtune("data", "prepare", "mix", "--out", out).code == 0
    assert responses(out) == ["Tea is good."]


def test_a_misspelt_command_is_no_source(
    rtune: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = rtune("data", "refin", "rows.jsonl", "--out", "o")
    assert ended.code == 2
    assert ended.err == (
        "rtune: data: no such command 'refin': did you mean 'refine'?; run 'rtune data --help' for "
        "its options\n"
    )


@pytest.mark.parametrize("name", ["refin", "refine.jsonl"])
def test_a_source_may_be_called_almost_like_a_command(
    rtune: Run, rows: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    source = Path(shutil.copy(rows, tmp_path / "rows-copy.jsonl"))
    if name == "refin":
        (tmp_path / name).mkdir()
        source.rename(tmp_path / name / "rows.jsonl")
    else:
        source.rename(tmp_path / name)
    assert rtune("data", name, "--out", out).code == 0


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_names_every_command_and_the_short_form(
    rtune: Run, arguments: tuple[str, ...]
) -> None:
    result = rtune("data", *arguments)
    said = result.out + result.err
    assert "'data SOURCE' is 'data prepare SOURCE'" in " ".join(said.split())
    for command in COMMANDS:
        assert f"  {command} " in said


def test_help_of_every_command_loads_nothing_heavy() -> None:
    probe = (
        "import sys\n"
        "from response_tuning.cli.main import main\n"
        "try:\n    main()\n"
        "except SystemExit:\n    pass\n"
        "found = {'torch', 'transformers', 'datasets', 'openai', 'numpy'} & set(sys.modules)\n"
        "sys.exit(str(found) if found else 0)\n"
    )
    for command in COMMANDS:
        words = [sys.executable, "-c", probe, "data", command, "--help"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "--out" in done.stdout or command == "inspect"


def test_prepare_has_flags_for_curation_and_decontamination(
    rtune: Run, rows: Path, out: Path, tiny_base: Path, tmp_path: Path
) -> None:
    prompts = write_rows(tmp_path / "prompts.jsonl", [{"prompt": "What is tea?"}])
    result = rtune(
        *("data", rows, "--out", out, "--tokenizer", tiny_base, "--min-tokens", 4),
        *("--near-duplicates", 0.9, "--personal-data", "drop", "--restatements", "flag"),
        *("--against", prompts, "--threshold", 0.9, "--remove", "--max-tokens", 500),
    )
    assert (result.code, result.err) == (0, "")
    config = read_json(out / "audit.json")["config"]
    assert config["curation"] == {
        "near_duplicates": 0.9,
        "tokenizer": str(tiny_base),
        "min_tokens": 4,
        "max_tokens": 500,
        "language": None,
        "personal_data": "drop",
        "restatements": "flag",
    }
    assert config["decontamination"] == {
        "against": [str(prompts)],
        "data": None,
        "threshold": 0.9,
        "remove": True,
    }
    assert responses(out) == ["I'm sorry, but I can't help with that."]


def test_mix_puts_refusals_among_a_sample_of_the_base(
    rtune: Run, rows: Path, out: Path, tmp_path: Path
) -> None:
    refusals = [
        {"prompt": f"How do I do harm {n}?", "response": f"I can't help with harm {n}."}
        for n in range(6)
    ]
    source = write_rows(tmp_path / "refusals.jsonl", [*refusals, {"response": "Here you are."}])
    result = rtune(
        *("data", "mix", rows, "--refusals", 3, "--mixture-source", source, "--out", out),
        *("--max-examples", 2, "--seed", 1, "--selector", "phrases"),
    )
    assert (result.code, result.err) == (0, "")
    said = responses(out)
    assert len(said) == 5
    assert sum("help with harm" in text for text in said) == 3
    audit = read_json(out / "audit.json")
    assert audit["refusals"]["name"] == str(source)
    assert audit["config"]["mixture"]["selector"] == "phrases"
    assert audit["config"]["seed"] == 1


def test_a_scripted_refiner_needs_no_model(
    rtune: Run, rows: Path, out: Path, tmp_path: Path
) -> None:
    table = [
        {
            "prompt": ask_for_rewrite(Example(row=0, response=row["response"]), "response")
            .prompt[0]
            .content,
            "response": f"Good.\nRefined response:\nWell! {row['response']}",
        }
        for row in ROWS
    ]
    answers = write_rows(tmp_path / "table.jsonl", table)
    engine = ("--engine", "scripted", "--table", answers, "--instruction-blind")
    result = rtune("data", "refine", rows, "--out", out, *engine)
    assert (result.code, result.err) == (0, "")
    assert responses(out) == [f"Well! {row['response']}" for row in ROWS]
    assert "4 replies; the engine does not count tokens" in result.out


def test_only_restatements_are_rewritten_if_told_so(rtune: Run, out: Path, tmp_path: Path) -> None:
    rows = [
        {"instruction": "Name two teas.", "response": "Here are two teas:\n\nAssam, mate."},
        {"instruction": "Is it hot?", "response": "It is hot."},
    ]
    example = Example(row=0, instruction=rows[0]["instruction"], response=rows[0]["response"])
    asked = ask_for_rewrite(example, "restatement").prompt[0].content
    reply = {"prompt": asked, "response": "So.\nRefined response:\nAssam, mate."}
    source = write_rows(tmp_path / "two.jsonl", rows)
    table = write_rows(tmp_path / "table.jsonl", [reply])
    engine = ("--engine", "scripted", "--table", table)
    result = rtune("data", "refine", source, "--out", out, *engine, "--restatements-only")
    assert (result.code, result.err) == (0, "")
    assert responses(out) == ["Assam, mate.", "It is hot."]
    assert "1  not-asked  keep" in result.out


SCRIPTED = ("--engine", "scripted", "--table", "table.jsonl")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("prepare", "no.jsonl"), "'no.jsonl': no such file or folder"),
        (("no.jsonl",), "'no.jsonl': no such file or folder"),
        (("rows.jsonl", "--personal-data", "hide"), "rtune: data prepare: curation.personal_data"),
        (("rows.jsonl", "--near-duplicates", "2"), "curation.near_duplicates"),
        (("rows.jsonl", "--against", "nothing"), "nothing"),
        (("rows.jsonl", "--max-examples", "9"), "only 4 are usable"),
        (("mix", "rows.jsonl", "--refusals", "-1"), "rtune: data mix: mixture.refusals"),
        (("mix", "rows.jsonl", "--refusals", "1", "--selector", "x"), "mixture.selector"),
        (
            ("mix", "rows.jsonl", "--refusals", "9", "--mixture-source", "refusals.jsonl"),
            "9 examples requested",
        ),
        (("refine", "no.jsonl", *SCRIPTED), "'no.jsonl': no such file or folder"),
        (("refine", "rows.jsonl"), "--model"),
        (("refine", "rows.jsonl", "--engine", "gpt"), "unknown engine 'gpt'"),
        (("refine", "rows.jsonl", "--engine", "openai", "--model", "m"), "--base-url"),
        (("refine", "rows.jsonl", "--engine", "scripted"), "no such table"),
        (
            ("refine", "rows.jsonl", *SCRIPTED, "--retries", "-1"),
            "data refine: refinement.retries",
        ),
        (("refine", "rows.jsonl", *SCRIPTED, "--after-retries", "x"), "after_retries"),
        (("refine", "rows.jsonl", *SCRIPTED, "--price-in", "-1"), "price_in"),
        (("refine", "rows.jsonl", *SCRIPTED, "--seed", "-1"), "seed"),
        (("extract", "no.txt"), "'no.txt': no such file or folder"),
        (("extract", "rows.jsonl"), "name it with --text-column"),
        (("extract", "rows.jsonl", "--text-column", "x"), "no column 'x'"),
        (("extract", "rows.jsonl", "--text-column", "response"), "hold 0 of 50 to 250 words"),
        (("extract", "rows.jsonl", "--min-words", "9", "--max-words", "8"), "min_words 9 is above"),
        (("extract", "rows.jsonl", "--model", "m"), "only with --engine"),
        (("extract", "rows.jsonl", "--engine", "hf"), "--model"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_and_nothing_is_written(
    rtune: Run,
    rows: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(rows.parent)
    Path("table.jsonl").write_text('{"prompt": "x", "response": "y"}\n')
    Path("refusals.jsonl").write_text('{"response": "I cannot help with that, ever."}\n')
    result = rtune("data", *arguments, "--out", out)
    assert result.code == 2, result
    assert said in result.err
    assert result.err.startswith("rtune: ") and result.err.count("\n") == 1
    assert not [path for path in out.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("no-marker", "expected OUTCOME=POLICY, such as no-marker=drop"),
        ("no-markr=drop", "unknown outcome 'no-markr': did you mean 'no-marker'? known are unch"),
        ("refined=drop", "unknown outcome 'refined': did you mean 'refused'?"),
        ("empty=dorp", "unknown policy 'dorp': did you mean 'drop'? known are keep, drop, retry"),
    ],
)
def test_a_policy_that_is_none_is_refused(
    rtune: Run, rows: Path, out: Path, policy: str, message: str
) -> None:
    result = rtune("data", "refine", rows, "--out", out, "--on", policy)
    assert result.code == 2
    assert f"--on {policy}: {message}" in result.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("flag", "value"), [("--max-new-tokens", 0), ("--temperature", -1), ("--retries", "many")]
)
def test_a_number_that_is_none_is_refused(
    rtune: Run, rows: Path, out: Path, flag: str, value: object
) -> None:
    result = rtune("data", "refine", rows, "--out", out, flag, value)
    assert result.code == 2
    assert flag in result.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no.jsonl",), "'no.jsonl': no such file or folder"),
        (("rows.jsonl", "--response-column", "x"), "no column 'x'"),
        (
            ("rows.jsonl", "--tokenizer", "nowhere"),
            "give a folder or hub id that holds one (--tokenizer)",
        ),
    ],
)
def test_an_inspection_that_cannot_be_is_one_line(
    rtune: Run, rows: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(rows.parent)
    result = rtune("data", "inspect", *arguments, "--html", "page.html")
    assert (result.code, result.out) == (2, "")
    assert said in result.err
    assert result.err.count("\n") == 1
    assert not Path("page.html").exists()
