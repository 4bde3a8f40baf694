"""How many tokens texts have, by a tokenizer that the user names."""

from collections.abc import Callable

from response_tuning.errors import ModelError
from response_tuning.readers import one_line


def token_counter(name: str) -> Callable[[list[str]], list[int]]:
    """Load a tokenizer and return what counts the tokens of texts, special ones left out.

    Raises:
        ModelError: ``name`` is no folder or hub id that holds a tokenizer.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{name}: no usable tokenizer (--tokenizer): {one_line(error)}; give a folder or hub "
            "id that holds one"
        ) from error

    def count(texts: list[str]) -> list[int]:
        if not texts:  # an empty batch is an error to some tokenizers
            return []
        encoded = tokenizer(texts, add_special_tokens=False, verbose=False)
        return [len(ids) for ids in encoded["input_ids"]]

    return count
