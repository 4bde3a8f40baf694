import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from response_tuning.artifacts import read_json
from response_tuning.configs import DataConfig
from response_tuning.data import pieces, piecewise, prepare, sources
from response_tuning.errors import DataError

TOKENIZER = Path(__file__).parents[1] / "assets" / "tiny_tokenizer"
OUTPUTS = ("examples.jsonl", "dropped.jsonl", "flagged.jsonl", "audit.json")
PROMPTS = {"p.jsonl": {"1": "Which of the two teas on the lower shelf is the older one, please?"}}
EVERYTHING: dict[str, Any] = {
    "curation": {
        "personal_data": "flag",
        "restatements": "strip",
        "html": "strip",
        "near_duplicates": 0.8,
        "tokenizer": str(TOKENIZER),
        "max_tokens": 60,
    },
    "decontamination": {"against": list(PROMPTS)},
    "max_examples": 40,
    "mixture": {"source": "miniature-refusals", "selector": "all", "refusals": 5},
}


def answers(count: int) -> Iterator[dict[str, Any]]:
    """Rows with everything that steps look for: duplicates near and far, long ones, empty ones."""
    draw = random.Random(0)
    words = ["green", "black", "white", "old", "cold", "warm", "leaves", "water", "pot", "cup"]
    texts: list[str] = []
    for number in range(count):
        text = " ".join(draw.choices(words, k=draw.randint(3, 30))) + f"\u2028 {number}\n"
        again = draw.choice(texts) if texts and draw.random() < 0.2 else None
        texts.append(again or text)
        prompt = PROMPTS["p.jsonl"]["1"] if number % 17 == 5 else f"Which tea\tis {number % 50}?"
        yield {"instruction": prompt, "response": texts[-1]}
        yield {
            "instruction": prompt,
            "response": f"{text} <b>Write</b> to anna{number}@tea.example",
        }
        yield {"instruction": "x", "response": ("", text * 9, 3)[number % 3]}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "answers.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in answers(60)]
    path.write_text("\n".join([*lines[:30], "", *lines[30:]]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, bytes | None]]:
    """Prepare a source whose pieces have so many bytes; return the files."""

    def run(
        path: Path, piece: int, processes: int = 1, out: str = "out", **settings: Any
    ) -> dict[str, bytes | None]:
        monkeypatch.setattr(pieces, "PIECE_BYTES", piece)
        config = DataConfig.model_validate({"source": str(path), **settings})
        prompts = PROMPTS if "decontamination" in settings else {}
        folder = tmp_path / f"{out}-{piece}-{processes}"
        prepare(config, folder, prompts, processes)
        assert not (folder / piecewise.FOLDER).exists()
        files = [folder / name for name in OUTPUTS]
        return {file.name: file.read_bytes() if file.exists() else None for file in files}

    return run


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"keep_duplicates": True, "curation": {"language": "en"}},
        {"max_examples": 30, "seed": 3},
        {"also": ["miniature"], "weights": [1, 1]},
        EVERYTHING,
    ],
    ids=["plain", "duplicates", "sample", "mixed", "everything"],
)
def test_pieces_give_the_bytes_of_the_whole(
    source: Path, prepared: Callable[..., dict[str, bytes | None]], settings: dict[str, Any]
) -> None:
    whole = prepared(source, 2**30, **settings)
    assert whole["examples.jsonl"]
    assert prepared(source, 3000, **settings) == whole


def test_no_byte_depends_on_the_number_of_processes(
    source: Path, prepared: Callable[..., dict[str, bytes | None]]
) -> None:
    one = prepared(source, 10_000, **EVERYTHING)
    assert prepared(source, 10_000, processes=2, **EVERYTHING) == one


def test_pairs_of_answers_stay_pairs(
    tmp_path: Path, prepared: Callable[..., dict[str, bytes | None]]
) -> None:
    rows = [
        {"prompt": f"q{i}", "chosen": f"Yes <i>{i % 20}</i>", "rejected": f"No {i % 20}"}
        for i in range(50)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"preferences": {"flip": 0.5}, "curation": {"html": "strip"}, "max_examples": 20}
    whole = prepared(path, 2**30, **settings)
    assert whole["examples.jsonl"]
    assert whole["examples.jsonl"].count(b"\n") == 40
    assert prepared(path, 500, **settings) == whole


def test_parquet_texts_and_other_formats_are_cut_too(
    tmp_path: Path, source: Path, prepared: Callable[..., dict[str, bytes | None]]
) -> None:
    rows = [row for row in answers(20) if isinstance(row["response"], str)]
    tables, texts = tmp_path / "tables", tmp_path / "texts"
    tables.mkdir()
    texts.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tables / "a.parquet", row_group_size=7)
    (tables / "b.csv").write_text('instruction,response\nq,"two\nlines"\nq,three\n')
    (tables / "c.jsonl").write_text('{"instruction": "q", "response": "r"}\n', encoding="utf-16")
    for number, row in enumerate(rows):
        (texts / f"{number:03}.txt").write_text(row["response"])
    for path in (tables, texts):
        assert prepared(path, 600, out=path.name) == prepared(path, 2**30, out=path.name)


def test_a_killed_command_goes_on_with_the_pieces_that_it_had(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 3000)
    config = DataConfig(source=str(source))
    prepare(config, tmp_path / "whole")
    read: list[int] = []
    real = pieces.read_lines

    def killed(file: Any, extent: Any) -> Iterator[Any]:
        read.append(extent.start)
        if len(read) == 6:
            raise KeyboardInterrupt
        yield from real(file, extent)

    monkeypatch.setattr(pieces, "read_lines", killed)
    surveyed = sources.survey_pieces

    def no_survey(*_: object) -> NoReturn:
        raise AssertionError("the source is surveyed again")

    monkeypatch.setattr(sources, "survey_pieces", lambda source, _: surveyed(source, _plain))
    with pytest.raises(KeyboardInterrupt):
        prepare(config, tmp_path / "out")
    monkeypatch.setattr(sources, "survey_pieces", no_survey)
    finished, before = read[:5], len(read)
    prepare(config, tmp_path / "out")
    assert read[before:][0] == read[5]
    assert not {*read[before:]} & {*finished}
    for name in OUTPUTS:
        whole, resumed = tmp_path / "whole" / name, tmp_path / "out" / name
        assert whole.exists() == resumed.exists()
        assert not whole.exists() or whole.read_bytes() == resumed.read_bytes()


def test_pieces_of_another_source_or_other_settings_are_not_used(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 3000)
    path = tmp_path / "answers.jsonl"
    path.write_bytes(source.read_bytes())
    out = tmp_path / "out"

    def interrupted(config: DataConfig) -> None:
        with monkeypatch.context() as patched:
            patched.setattr("response_tuning.data.preparation.write_json", _stop)
            with pytest.raises(KeyboardInterrupt):
                prepare(config, out)

    interrupted(DataConfig(source=str(path)))
    left = {folder.name for folder in (out / piecewise.FOLDER).iterdir()}
    interrupted(DataConfig(source=str(path), seed=1))
    assert {folder.name for folder in (out / piecewise.FOLDER).iterdir()}.isdisjoint(left)
    path.write_bytes(path.read_bytes().replace(b"green", b"brown"))
    prepare(DataConfig(source=str(path), seed=1), out)
    assert b"green" not in (out / "examples.jsonl").read_bytes()
    assert read_json(out / "audit.json")["examples"] > 0


@pytest.mark.parametrize("processes", [1, 2])
def test_a_damaged_line_is_named_by_its_number(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: int
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 15_000)
    lines = source.read_bytes().splitlines(keepends=True)
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b"".join([*lines[:150], b'{"response": "' + b"\n", *lines[150:]]))
    with pytest.raises(DataError, match=r"answers.jsonl:151: not JSON"):
        prepare(DataConfig(source=str(path)), tmp_path / "out", processes=processes)


def _plain(look: Any, /, *items: Any) -> Iterator[Any]:
    """Survey the pieces without the reader that a test replaces."""
    return map(look, [partial(_REAL, *piece.args) for piece in items[0]])


_REAL = pieces.read_lines


def _stop(*_: object) -> NoReturn:
    raise KeyboardInterrupt
