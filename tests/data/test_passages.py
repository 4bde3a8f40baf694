import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from response_tuning.artifacts import read_json, read_jsonl
from response_tuning.configs import DataConfig
from response_tuning.data.passages import Passage, extract, passages, sentences, unfit
from response_tuning.errors import ConfigError, DataError
from response_tuning.extraction_config import ExtractionConfig
from response_tuning.validation import build

Extract = Callable[..., tuple[list[Passage], dict[str, Any]]]


def sentence(words: int, name: str = "word") -> str:
    numbered = (f"{name}{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(words - 1))
    return " ".join([f"{name.capitalize()}x", *numbered]) + "."


def settings(**values: Any) -> ExtractionConfig:
    return ExtractionConfig.model_validate(values)


def data(source: Path, **values: Any) -> DataConfig:
    own = {name: values.pop(name) for name in [*values] if name in DataConfig.model_fields}
    return DataConfig.model_validate({"source": str(source), **own, "extraction": values})


@pytest.fixture
def take(tmp_path: Path) -> Extract:
    def run(source: Path, **values: Any) -> tuple[list[Passage], dict[str, Any]]:
        out = tmp_path / "out"
        values = {"min_words": 5, "max_words": 30, **values}
        extract(data(source, **values), out)
        return list(read_jsonl(out / "passages.jsonl", Passage)), read_json(out / "extraction.json")

    return run


def pieces(text: str, **values: Any) -> tuple[list[str], Counter[str]]:
    left_out: Counter[str] = Counter()
    values = {"min_words": 5, "max_words": 30, **values}
    return list(passages(text, settings(**values), left_out)), left_out


def test_a_passage_is_whole_paragraphs_as_many_as_fit() -> None:
    a, b, c = (sentence(12, name) for name in "abc")
    extracted, left_out = pieces(f"{a}\n\n{b}\n\n{c}")
    assert extracted == [f"{a}\n\n{b}", c]
    assert not left_out


def test_a_long_paragraph_is_cut_between_sentences_only() -> None:
    parts = [sentence(12, name) for name in "abcdef"]
    extracted, _ = pieces(" ".join(parts))
    assert extracted == [" ".join(parts[i : i + 2]) for i in (0, 2, 4)]


def test_the_rest_of_a_long_paragraph_is_joined_with_the_next_one() -> None:
    a, b, c, d = (sentence(12, name) for name in "abcd")
    extracted, _ = pieces(f"{a} {b} {c}\n\n{d}")
    assert extracted == [f"{a} {b}", f"{c}\n\n{d}"]


def test_what_is_too_short_or_one_endless_sentence_is_left_out_and_counted() -> None:
    extracted, left_out = pieces(f"{sentence(5)}\n\n{sentence(31)}\n\n{sentence(12)}", min_words=6)
    assert extracted == [sentence(12)]
    assert left_out == {
        "shorter than --min-words": 1,
        "a sentence longer than --max-words": 1,
    }


def test_a_passage_does_not_bridge_what_is_left_out() -> None:
    a, b = sentence(8, "a"), sentence(8, "b")
    extracted, left_out = pieces(f"{a}\n\nAbout us\n\n{b}")
    assert extracted == [a, b]
    assert left_out == {"a heading, an entry or a fragment": 1}


@pytest.mark.parametrize(
    ("paragraph", "reason"),
    [
        ("The history of tea", "a heading, an entry or a fragment"),
        ("Home", "a heading, an entry or a fragment"),
        ("So it is.", "a heading, an entry or a fragment"),
        ("Home | News | Sport | Weather | About us | Contact.", "links or a menu"),
        ("See https://tea.example and www.tea.example for more.", "links or a menu"),
        ("Mail tea@tea.example now or never.", "links or a menu"),
        ("if (x) { return y; } and so on it goes.", "code or markup"),
        ("It is <b>very</b> good to drink tea.", "code or markup"),
        ("We use cookies to give you the best experience.", "words of a web site"),
        ("Copyright 2020 Tea Ltd, all rights reserved everywhere.", "words of a web site"),
        ("In 1999 12 345 678 were 90 123 456 of 789 012.", "too many digits"),
    ],
)
def test_what_is_no_prose_is_told_apart(paragraph: str, reason: str) -> None:
    assert unfit(paragraph) == reason


@pytest.mark.parametrize(
    "paragraph",
    [
        "Tea is drunk in many countries.",
        "He asked: \u201cIs there any tea left?\u201d",
        'In 1842, and again in 1901, they said "Tea is for all."',
        "A long text may well speak of a cookie now and then. " + sentence(60),
        "\u8336\u306f \u3068\u3066\u3082 \u304a\u3044\u3057\u3044 \u98f2\u307f\u7269 "
        "\u3067\u3059\u3002",
    ],
)
def test_prose_is_kept(paragraph: str) -> None:
    assert unfit(paragraph) is None


@pytest.mark.parametrize(
    "parts",
    [
        ["Dr. Smith met the U.S. Army in No. 5 on Jan. 3. ", "Then he left."],
        ["He said \u201cGo.\u201d ", "(It was late.) ", "\u201cWhy?\u201d ", "Nobody knew!"],
        ["It cost 3.50 dollars at tea.example. ", "So it was, e.g. for us."],
        ["J. S. Bach wrote it. ", "Is it good? ", "Yes!"],
        ["\u597d\u3002", "\u518d\u89c1\u3002"],
        ["no capital follows. and so it goes on."],
    ],
)
def test_sentences_end_where_a_reader_ends_them(parts: list[str]) -> None:
    assert sentences("".join(parts)) == parts


def test_paragraphs_that_were_joined_without_a_space_are_told_apart() -> None:
    a, b = sentence(10, "alpha"), sentence(10, "beta")
    extracted, _ = pieces(a + b)
    assert extracted == [f"{a}\n\n{b}"]


def test_wrapped_lines_are_joined_and_lists_are_not() -> None:
    prose = "Tea is made of leaves that\nare put into hot water\nfor some minutes."
    steps = "This is how it is done:\n- Boil the water well.\n- Put the leaves in."
    extracted, _ = pieces(f"{prose}\n\n{steps}", max_words=40)
    assert extracted == [f"{prose.replace(chr(10), ' ')}\n\n{steps}"]


def test_lines_without_blank_ones_are_paragraphs() -> None:
    extracted, _ = pieces(f"{sentence(10, 'a')}\n{sentence(10, 'b')}")
    assert extracted == [f"{sentence(10, 'a')}\n\n{sentence(10, 'b')}"]


def test_a_folder_of_texts_has_a_document_a_file(tmp_path: Path, take: Extract) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.txt").write_text(sentence(8, "a"))
    (folder / "b.md").write_text(f"# Heading\n\n{sentence(8, 'b')}\n")
    (folder / "c.pdf").write_text("no text")
    extracted, counts = take(folder)
    assert [(p.text, p.words, p.where) for p in extracted] == [
        (sentence(8, "a"), 8, str(folder / "a.txt")),
        (sentence(8, "b"), 8, str(folder / "b.md")),
    ]
    assert (counts["documents"], counts["documents_used"], counts["passages"]) == (3, 2, 2)
    assert counts["left_out"]["document: not a .txt or .md file"] == 1
    assert counts["source"]["path"] == str(folder.resolve())


@pytest.mark.parametrize("column", ["text", "content", "body"])
def test_a_data_file_has_a_document_a_row(tmp_path: Path, take: Extract, column: str) -> None:
    path = tmp_path / "news.jsonl"
    rows: list[dict[str, Any]] = [
        {"title": "Tea", column: sentence(8)},
        {"title": "Nothing", column: None},
        {"title": "Two", column: f"{sentence(20, 'a')}\n{sentence(20, 'b')}"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    extracted, counts = take(path)
    assert [p.where for p in extracted] == [f"{path}:1", f"{path}:3", f"{path}:3"]
    assert counts["left_out"] == {"document: no text": 1, "document: blank line": 1}
    assert counts["source"]["column"] == column
    assert len(counts["source"]["sha256"]) == 64


def test_a_column_can_be_named(tmp_path: Path, take: Extract) -> None:
    path = tmp_path / "news.csv"
    path.write_text(f"text,story\nno,{sentence(8)}\n")
    extracted, _ = take(path, text_column="story")
    assert [p.text for p in extracted] == [sentence(8)]


@pytest.mark.parametrize("between", ["\n", "\n\n", "\n \n\n"])
def test_a_plain_text_has_a_document_a_line_or_a_block(
    tmp_path: Path, take: Extract, between: str
) -> None:
    path = tmp_path / "all.txt"
    path.write_text("\ufeff" + sentence(8, "a") + between + sentence(8, "b") + "\n")
    extracted, counts = take(path)
    assert [p.text for p in extracted] == [sentence(8, "a"), sentence(8, "b")]
    assert [p.where for p in extracted] == [f"{path}:1", f"{path}:{1 + between.count(chr(10))}"]
    assert counts["documents"] == 2


def test_the_lines_of_a_block_are_one_document(tmp_path: Path, take: Extract) -> None:
    path = tmp_path / "all.txt"
    path.write_text("Tea is made\nof leaves and water.\n\nSo is this one here too.\n")
    extracted, _ = take(path)
    assert [p.text for p in extracted] == [
        "Tea is made of leaves and water.",
        "So is this one here too.",
    ]


def test_a_markdown_file_is_one_document(tmp_path: Path, take: Extract) -> None:
    path = tmp_path / "all.md"
    path.write_text(f"{sentence(8, 'a')}\n\n{sentence(8, 'b')}\n")
    extracted, counts = take(path)
    assert [p.text for p in extracted] == [f"{sentence(8, 'a')}\n\n{sentence(8, 'b')}"]
    assert counts["documents"] == 1


def test_fewer_passages_than_requested_is_an_error_that_leaves_nothing(
    tmp_path: Path, take: Extract
) -> None:
    path = tmp_path / "all.txt"
    path.write_text(sentence(8))
    message = (
        r"2 passages requested \(--max-passages\), but its 1 documents hold 1 of 5 to 30 words"
    )
    with pytest.raises(DataError, match=message):
        take(path, max_examples=2)
    with pytest.raises(DataError, match="its 1 documents hold 0 of 9 to 30 words"):
        take(path, min_words=9)
    assert not list((tmp_path / "out").glob("*"))


def test_what_cannot_be_documents_is_refused_in_words(tmp_path: Path, take: Extract) -> None:
    text = tmp_path / "a.txt"
    text.write_bytes(b"caf\xe9 au lait\n")
    with pytest.raises(DataError, match=r"a\.txt:1: byte 3 of the file is 0xe9"):
        take(text)
    with pytest.raises(ConfigError, match=r"a text file has no columns; remove --text-column"):
        take(text, text_column="text")
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"title": "x"}\n')
    with pytest.raises(DataError, match="no column with texts among 'title'; name it with --text"):
        take(rows)
    with pytest.raises(DataError, match="no column 'body' among 'title'"):
        take(rows, text_column="body")
    rows.write_text("")
    with pytest.raises(DataError, match="it has no rows"):
        take(rows)
    with pytest.raises(DataError, match="no such file or folder"):
        take(tmp_path / "nowhere.txt")


def test_passages_are_not_written_into_their_source(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(sentence(8))
    with pytest.raises(ConfigError, match="lies in the source"):
        extract(data(tmp_path, min_words=5), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_impossible_lengths_are_named() -> None:
    with pytest.raises(ConfigError, match="min_words 50 is above max_words 10"):
        build(ExtractionConfig, {"max_words": 10}, "here")


def test_the_column_of_texts_is_found_if_only_some_rows_have_it(
    tmp_path: Path, take: Extract
) -> None:
    rows = [{"title": "x", "text": None}, {"title": "y", "body": sentence(12)}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    extracted, _ = take(path)
    assert [passage.text for passage in extracted] == [sentence(12)]
