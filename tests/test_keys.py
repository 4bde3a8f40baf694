"""A key is neither shown nor kept, whatever a user, a recipe or a server does with it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
KEY = "sk-planted-0123456789abcdef"
PASSWORD = "planted-p4ssw0rd"
SECRETS = (KEY, PASSWORD)

RECIPE = """
data: {{source: miniature, max_examples: 8}}
finetune: {{base_model: {base}, device: cpu, method: full, epochs: 1}}
generate: {{max_new_tokens: 4}}
benchmarks: [advbench]
variants: {{rt: {{}}{variants}}}
grade:
  data: {copies}
  judge: {{engine: openai, settings: {{{settings}}}}}
"""


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    path = tmp_path / "copies" / "advbench" / "harmful_behaviors.csv"
    path.parent.mkdir(parents=True)
    path.write_text("goal,target\nBreak a lock,Sure\nForge a ticket,Sure\n", encoding="utf-8")
    return tmp_path / "copies"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, of which no file holds a secret in the end."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    yield folder
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(secret.encode() in content for secret in SECRETS), path


@pytest.fixture
def said(rtune: Run) -> Callable[..., Any]:
    """Run a command, of whose output no line holds a secret."""

    def run(*arguments: object) -> Any:
        result = rtune(*arguments)
        assert not any(secret in result.out + result.err for secret in SECRETS)
        return result

    return run


def commands(tmp_path: Path, copies: Path, base: Path) -> dict[str, list[object]]:
    """Every command that asks a server, but for the flags that name it."""
    prompts, rows = tmp_path / "prompts.jsonl", tmp_path / "rows.jsonl"
    prompts.write_text('{"prompt": "hi"}\n', encoding="utf-8")
    rows.write_text('{"prompt": "hi", "response": "Hello there."}\n', encoding="utf-8")
    labels = tmp_path / "labels.jsonl"
    labels.write_text(
        '{"prompt": "hi", "completion": "No.", "label": "refusal"}\n', encoding="utf-8"
    )
    texts = tmp_path / "texts.jsonl"
    texts.write_text(json.dumps({"text": "A passage of words. " * 60}) + "\n", encoding="utf-8")
    return {
        "generate": ["generate", prompts, "--out", "said.jsonl"],
        "refine": ["data", "refine", rows, "--out", "refined"],
        "extract": ["data", "extract", texts, "--out", "extracted"],
        "eval": ["eval", "m", "--suite", "advbench", "--data", copies, "--out", "run"],
        "judge-check": ["judge-check", "--labels", labels, "--save", "check"],
    }


def asking(name: str, command: list[object], url: str) -> list[object]:
    if name == "judge-check":
        return [*command, "--judge", "openai", "--judge-model", "m", "--judge-url", url]
    model = [] if name == "eval" else ["--model", "m"]
    return [*command, "--engine", "openai", *model, "--base-url", url]


NAMES = ("generate", "refine", "extract", "eval", "judge-check")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_a_key_that_a_server_sends_back_is_neither_shown_nor_kept(
    said: Run, name: str, status: int, server: Any, tmp_path: Path, copies: Path
) -> None:
    text = f"Verdict: Refusal of {KEY}, Bearer {KEY}, http://x:{PASSWORD}@host/"
    if status == 200:
        text = f"I was sent {KEY}.\nRefined response: It is {KEY}, is it not?"
    server.judges = lambda body: server.reply(text, status=status)
    said(*asking(name, commands(tmp_path, copies, copies)[name], server.url))
    assert server.keys == {f"Bearer {KEY}"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "address",
    [
        "http://user:{password}@127.0.0.1:9/v1",
        "http://{password}@127.0.0.1:9/v1",
        "user:{password}@127.0.0.1:9/v1",
        "http://127.0.0.1:9/v1?key={password}",
        "http://127.0.0.1:9/v1#{password}",
        "http://127.0.0.1:9/{key}/v1",
    ],
)
def test_an_address_that_holds_a_key_is_refused_before_anything_is_written(
    said: Run, name: str, address: str, tmp_path: Path, copies: Path, place: Path
) -> None:
    url = address.format(password=PASSWORD, key=KEY)
    result = said(*asking(name, commands(tmp_path, copies, copies)[name], url))
    assert result.code == 2
    assert "must not hold a key" in result.err and result.err.count("\n") == 1
    assert [path for path in place.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "setting",
    [
        f"api_key={KEY}",
        f"api_key={PASSWORD}",
        f"api_key_env={KEY}",
        f"base_url=http://user:{PASSWORD}@127.0.0.1:9/v1",
        f"Authorization='Bearer {KEY}'",
        f"headers={{x-api-key: {PASSWORD}}}",
    ],
)
@pytest.mark.parametrize("command", ["grade", "eval", "judge-check", "run", "dry"])
def test_a_key_among_a_judge_s_settings_is_refused_before_anything_runs(
    said: Run,
    setting: str,
    command: str,
    server: Any,
    tmp_path: Path,
    copies: Path,
    place: Path,
    miniature_base: Path,
) -> None:
    recipe = tmp_path / "recipe.yaml"
    settings = f"model: m, base_url: {server.url}"
    recipe.write_text(
        RECIPE.format(base=miniature_base, variants="", copies=copies, settings=settings),
        encoding="utf-8",
    )
    (tmp_path / "said.jsonl").touch()
    judge = ["--judge", "openai", "--judge-model", "m", "--judge-url", server.url]
    labels = commands(tmp_path, copies, copies)["judge-check"]
    line = {
        "grade": ["grade", "advbench", tmp_path / "said.jsonl", "--out", "scores.jsonl", *judge],
        "eval": [
            *("eval", miniature_base, "--template", "tulu", "--suite", "advbench"),
            *("--data", copies, "--out", "run", *judge),
        ],
        "judge-check": [*labels, *judge],
        "run": ["run", recipe, "--out", "run"],
        "dry": ["run", recipe, "--out", "run", "--dry-run"],
    }[command]
    result = said(*line, "--set", f"grade.judge.settings.{setting}")
    assert result.code == 2
    assert "grade.judge.settings" in result.err and result.err.count("\n") == 1
    assert [path for path in place.rglob("*") if path.is_file()] == []
    assert server.asked.total() == 0


def test_a_key_in_a_recipe_s_own_settings_is_refused_before_anything_runs(
    said: Run, tmp_path: Path, copies: Path, place: Path, miniature_base: Path
) -> None:
    for settings, variants in (
        (f"model: m, api_key: {PASSWORD}", ""),
        (
            "model: m, base_url: http://127.0.0.1:9/v1",
            f", m: {{finetune: null, generate: {{engine:"
            f" openai, settings: {{api_key: {PASSWORD}}}}}}}",
        ),
        (
            "model: m, base_url: http://127.0.0.1:9/v1",
            f", m: {{finetune: null, generate: {{engine:"
            f" openai, settings: {{base_url: 'http://a:{PASSWORD}@127.0.0.1/v1'}}}}}}",
        ),
    ):
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(
            RECIPE.format(base=miniature_base, variants=variants, copies=copies, settings=settings),
            encoding="utf-8",
        )
        result = said("run", recipe, "--out", "run")
        assert result.code == 2, result.out
        assert result.err.count("\n") == 1
        assert not Path("run").exists()


def test_a_key_in_place_of_its_variable_s_name_is_not_repeated(
    said: Run, server: Any, tmp_path: Path, copies: Path
) -> None:
    line = asking("generate", commands(tmp_path, copies, copies)["generate"], server.url)
    result = said(*line, "--api-key-env", KEY)
    assert result.code == 2
    assert "expected the name of an environment variable" in result.err
