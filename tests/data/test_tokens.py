from pathlib import Path

import pytest

from response_tuning.data.tokens import token_counter
from response_tuning.errors import ModelError

TOKENIZER = Path(__file__).parents[1] / "assets" / "tiny_tokenizer"


def test_tokens_are_counted_without_special_ones() -> None:
    count = token_counter(str(TOKENIZER))
    one, two, none = count(["Hello.", "Hello. Hello.", ""])
    assert 0 == none < one < two
    assert count([]) == []


def test_a_folder_without_a_tokenizer_is_one_line_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as raised:
        token_counter(str(tmp_path))
    message = str(raised.value)
    assert message.startswith(f"{tmp_path}: no usable tokenizer (--tokenizer): ")
    assert message.endswith("give a folder or hub id that holds one")
    assert "\n" not in message
