import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

import response_tuning

SCRIPT = Path(__file__).parents[2] / "examples" / "write_prompts.py"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["write_prompts.py", *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_text_whose_prompt_ended_becomes_a_pair(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    answers, pairs = tmp_path / "answers.jsonl", tmp_path / "pairs.jsonl"
    texts = [f"Tea number {number} needs {number} minutes." for number in range(1, 7)]
    answers.write_text("".join(json.dumps({"response": text}) + "\n" for text in texts))
    run(monkeypatch, answers, pairs, "--model", "miniature", "--template", "roles")
    written = rows(tmp_path / "pairs.written.jsonl")
    assert [text in one["prompt"][0]["content"] for text, one in zip(texts, written, strict=True)]
    capsys.readouterr()
    replies = [
        ("What about 1?", "stop"),
        ("a loop", "length"),
        (" ", "stop"),
        (" And 4?\n", "stop"),
    ]
    replies += [("Tea number 5 needs how long?", "stop"), ("Six?", "other")]
    for one, (response, reason) in zip(written, replies, strict=True):
        one |= {"response": response, "finish_reason": reason}

    def generate(prompts: Path, out: Path, **settings: object) -> None:
        out.write_text("".join(json.dumps(one) + "\n" for one in written))

    monkeypatch.setattr(response_tuning, "generate", generate)
    run(monkeypatch, answers, pairs, "--model", "miniature", "--template", "roles")
    assert rows(pairs) == [
        {"instruction": "What about 1?", "response": texts[0]},
        {"instruction": "And 4?", "response": texts[3]},
    ]
    out = capsys.readouterr().out
    assert f"2 of 6 texts have a prompt, 1 begin as their text does: {pairs}" in out


def test_the_request_to_a_tuned_writer_is_the_text_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers, pairs = tmp_path / "answers.jsonl", tmp_path / "pairs.jsonl"
    text = "Tea {of 3} needs minutes."
    answers.write_text(json.dumps({"response": text}) + "\n")
    run(monkeypatch, answers, pairs, "--model", "miniature", "--template", "roles",
        "--request", "{response}")  # fmt: skip
    assert rows(tmp_path / "pairs.written.jsonl")[0]["prompt"][0]["content"] == text


def test_a_request_without_a_place_for_the_text_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, tmp_path / "a.jsonl", tmp_path / "p.jsonl", "--model", "m",
            "--request", "Why?")  # fmt: skip
    assert stopped.value.code == 2
    assert "put {response} where the text belongs" in capsys.readouterr().err
