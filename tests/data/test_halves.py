import json
from pathlib import Path

import pytest

from response_tuning.artifacts import read_json, read_jsonl
from response_tuning.continuation_config import ContinuationConfig
from response_tuning.data.halves import HALVES, ONE_SENTENCE, Half, word_starts, write_halves
from response_tuning.data.tokens import token_counter
from response_tuning.errors import DataError

TINY = Path(__file__).parents[1] / "assets" / "tiny_tokenizer"
TEXT = "Tea is a drink. It is warm and people like it a lot. Then they sleep well. The end came."


def halves_of(folder: Path, *texts: str, **settings: object) -> list[Half]:
    rows = [{"text": text, "words": len(text.split()), "where": "a.txt:1"} for text in texts]
    (folder / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    record = {"passages": len(rows), "left_out": {"too many digits": 2}, "config": {"seed": 0}}
    (folder / "extraction.json").write_text(json.dumps(record))
    write_halves(folder, ContinuationConfig.model_validate(settings))
    return list(read_jsonl(folder / HALVES, Half))


def test_a_passage_is_cut_at_the_sentence_end_next_to_its_middle(tmp_path: Path) -> None:
    (half,) = halves_of(tmp_path, TEXT)
    assert half.first_half == "Tea is a drink. It is warm and people like it a lot."
    assert half.second_half == "Then they sleep well. The end came."
    assert half.source == "a.txt:1"


def test_a_passage_of_one_sentence_is_left_out_and_counted(tmp_path: Path) -> None:
    assert len(halves_of(tmp_path, "It is one sentence.", TEXT)) == 1
    record = read_json(tmp_path / "extraction.json")
    assert record["halves"] == 1
    assert record["left_out"] == {"too many digits": 2, ONE_SENTENCE: 1}
    assert record["config"]["continuation"] == {"cut": "sentence", "tokenizer": None}


def test_no_passage_to_cut_is_one_line_that_names_the_other_way(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--cut exact --tokenizer"):
        halves_of(tmp_path, "It is one sentence.")
    assert not (tmp_path / HALVES).exists()


def test_an_exact_cut_is_at_the_middle_token_also_inside_a_sentence(tmp_path: Path) -> None:
    (half,) = halves_of(tmp_path, TEXT, cut="exact", tokenizer=str(TINY))
    numbers = token_counter(str(TINY))([half.first_half, half.second_half])
    assert abs(numbers[0] - numbers[1]) <= 2
    assert "".join((half.first_half, half.second_half)).replace(" ", "") == TEXT.replace(" ", "")
    assert not half.first_half.endswith(".")


def test_words_begin_after_white_space() -> None:
    assert word_starts(" Tea  is\nhot") == [1, 6, 9]
