"""Token counts by a tokenizer that the user names."""

from collections.abc import Callable

from response_tuning.errors import ModelError
from response_tuning.models.loading import load_tokenizer
from response_tuning.models.location import locate


def token_counter(name: str) -> Callable[[list[str]], list[int]]:
    """Load a tokenizer; return a function that counts the tokens of texts, without special ones.

    Raises:
        ModelError: ``name`` names neither a folder nor a hub id with a tokenizer.
    """
    try:
        folder = locate(name, weights=False)
        tokenizer = load_tokenizer(folder, what="no usable tokenizer (--tokenizer)")
    except ModelError as error:
        raise ModelError(
            f"{error}; or give a folder or hub id that holds one (--tokenizer)"
        ) from error

    def count(texts: list[str]) -> list[int]:
        if not texts:  # some tokenizers fail on an empty batch
            return []
        encoded = tokenizer(texts, add_special_tokens=False, verbose=False)
        return [len(ids) for ids in encoded["input_ids"]]

    return count
