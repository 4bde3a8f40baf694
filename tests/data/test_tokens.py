from pathlib import Path
from typing import NoReturn

import pytest

from response_tuning.data.tokens import token_counter
from response_tuning.errors import ModelError
from response_tuning.miniature import BASE

TOKENIZER = Path(__file__).parents[1] / "assets" / "tiny_tokenizer"


def test_tokens_are_counted_without_special_ones() -> None:
    count = token_counter(str(TOKENIZER))
    one, two, none = count(["Hello.", "Hello. Hello.", ""])
    assert 0 == none < one < two
    assert count([]) == []


def test_the_miniature_has_a_tokenizer_and_asks_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_hub(*_: object, **__: object) -> NoReturn:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", no_hub)
    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", no_hub)
    count, same = token_counter("miniature"), token_counter(str(BASE))
    assert count(["Hello.", "3 and 8"]) == same(["Hello.", "3 and 8"])
    assert count(["64"]) == [2]  # digits one by one


def test_a_folder_without_a_tokenizer_is_one_line_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as raised:
        token_counter(str(tmp_path))
    message = str(raised.value)
    assert message.startswith(f"{tmp_path}: no usable tokenizer (--tokenizer): ")
    assert message.endswith("give a folder or hub id that holds one (--tokenizer)")
    assert "\n" not in message
