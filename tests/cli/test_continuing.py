import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import Completion, Example, read_json, read_jsonl
from response_tuning.data.refinement.tally import Refinement
from response_tuning.journals import Journal
from response_tuning.miniature.texts import continuation

Run = Callable[..., Any]
TEXTS = [
    "Lorenia lies in the north. Its towns are small and quiet. Few people visit them. They stay.",
    "Rain fell on the hills all night. In the morning the river rose. Nobody slept. It ended.",
    "The wheel of the mill turned slowly. Grain became flour. Then the mill closed. It stands.",
]
SHORT = ("--min-words", 5, "--max-words", 40)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def examples(folder: Path) -> list[Example]:
    return list(read_jsonl(folder / "examples.jsonl", Example))


def test_without_a_writer_the_second_half_is_the_document_s_own(
    rtune: Run, texts: Path, out: Path
) -> None:
    result = rtune("data", "continue", texts, "--out", out, *SHORT)
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith("3 documents: 3 used, 3 passages, 3 cut in half\n")
    assert [f"{one.instruction} {one.response}" for one in examples(out)] == TEXTS
    assert rtune("data", "continue", texts, "--out", out, *SHORT).out == result.out


def test_a_writer_gets_the_half_and_its_continuation_is_the_response(
    rtune: Run, texts: Path, out: Path
) -> None:
    command = ("data", "continue", texts, "--out", out, *SHORT, "--engine", "miniature")
    result = rtune(*command, "--request", "bare")
    assert (result.code, result.err) == (0, "")
    assert "3 halves: 3 continued, 0 dropped" in result.out
    original, written = examples(out / "original"), examples(out)
    # Every writer goes on with the same halves, so that arms differ in the second half alone.
    assert [one.instruction for one in original] == [one.instruction for one in written]
    assert [one.response for one in written] == [continuation(str(o.instruction)) for o in original]
    refined = list(read_jsonl(out / "refinements.jsonl", Refinement))
    assert [one.half for one in refined] == [one.instruction for one in original]
    assert [one.original for one in refined] == [one.response for one in original]
    page = (out / "page.html").read_text()
    assert "Continued halves" in page and str(original[0].instruction) in page
    audit = read_json(out / "audit.json")
    assert audit["refinement"]["prompt_digest"] == "bare"
    assert audit["extraction"]["halves"] == 3


def test_a_truncated_continuation_is_dropped_and_never_replaced(
    rtune: Run, texts: Path, out: Path, tmp_path: Path
) -> None:
    assert rtune("data", "continue", texts, "--out", tmp_path / "own", *SHORT).code == 0
    halves = [str(one.instruction) for one in examples(tmp_path / "own")]
    replies = ["Good and short.", "on and on " * 50, halves[2]]
    table = tmp_path / "table.jsonl"
    lines = [{"prompt": p, "response": r} for p, r in zip(halves, replies, strict=True)]
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    engine = ("--engine", "scripted", "--table", table, "--request", "bare")
    result = rtune("data", "continue", texts, "--out", out, *SHORT, *engine)
    assert result.code == 0
    assert [one.response for one in examples(out)] == ["Good and short."]
    dropped = read_json(out / "audit.json")["dropped"]
    assert dropped == {"refinement: truncated": 1, "refinement: copy": 1}
    assert len(list(Journal(out / "journal.jsonl", Completion))) == 1 + 2 * 3  # two retries each


def test_screening_counts_and_asks_a_judge(
    rtune: Run, texts: Path, out: Path, tmp_path: Path
) -> None:
    assert rtune("data", "continue", texts, "--out", tmp_path / "own", *SHORT).code == 0
    source = tmp_path / "own" / "examples.jsonl"
    result = rtune("data", "screen", source, "--out", out)
    assert (result.code, result.err) == (0, "")
    assert "3 responses: question mark 0.0%, imperative 0.0%, second person 0.0%" in result.out
    table = tmp_path / "table.jsonl"
    table.write_text('{"prompt": "x", "response": "no"}\n')
    engine = ("--engine", "scripted", "--table", table)
    result = rtune("data", "screen", source, "--out", tmp_path / "judged", *engine)
    assert result.code == 2
    assert "3 of 3 examples got no verdict" in result.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("continue", "texts.jsonl", "--cut", "exact"), "cut 'exact' is at a token"),
        (("continue", "texts.jsonl", "--request", "bare"), "no writer is asked without --engine"),
        (("continue", "texts.jsonl", "--model", "m"), "only with --engine"),
        (
            ("continue", "texts.jsonl", "--engine", "miniature", "--on", "no-marker=drop"),
            "unknown outcome 'no-marker'",
        ),
        (
            ("continue", "texts.jsonl", "--engine", "miniature", "--on", "copy=keep"),
            "would mix the source's texts",
        ),
        (("continue", "texts.jsonl", "--engine", "miniature", "--table", "t"), "no use for table"),
        (("screen", "texts.jsonl", "--drop", "judged"), "there is no judge"),
        (("screen", "texts.jsonl", "--drop", "all"), "unknown choice of --drop 'all'"),
        (("screen", "texts.jsonl", "--model", "m"), "no judge is asked without --engine"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    rtune: Run,
    texts: Path,
    out: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(texts.parent)
    result = rtune("data", *arguments, "--out", out)
    assert result.code == 2 and said in result.err
    assert len(result.err.splitlines()) == 1
    assert not out.exists()
