"""Token counts by a tokenizer that the user names."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from response_tuning.errors import ModelError
from response_tuning.models.loading import load_tokenizer
from response_tuning.models.location import locate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def token_counter(name: str) -> Callable[[list[str]], list[int]]:
    """Load a tokenizer; return a function that counts the tokens of texts, without special ones.

    Raises:
        ModelError: ``name`` names neither a folder nor a hub id with a tokenizer.
    """
    tokenizer = _load(name)
    if tokenizer.is_fast:
        # The backend itself: lists of ids and masks, which nobody needs, take a fifth of the time.
        backend = tokenizer.backend_tokenizer
        backend.no_padding()
        backend.no_truncation()
        return lambda texts: [
            len(encoded) for encoded in backend.encode_batch_fast(texts, add_special_tokens=False)
        ]

    def count(texts: list[str]) -> list[int]:
        if not texts:  # some tokenizers fail on an empty batch
            return []
        encoded = tokenizer(texts, add_special_tokens=False, verbose=False)
        return [len(ids) for ids in encoded["input_ids"]]

    return count


def token_starts(name: str) -> Callable[[str], list[int]]:
    """Load a tokenizer; return a function that says where each token of a text begins.

    Raises:
        ModelError: ``name`` names no tokenizer, or one without a fast version.
    """
    tokenizer = _load(name)
    if not tokenizer.is_fast:
        raise ModelError(
            f"{name}: its tokenizer has no fast version, which knows where tokens begin"
        )

    def starts(text: str) -> list[int]:
        encoded = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return [start for start, _ in encoded["offset_mapping"]]

    return starts


def _load(name: str) -> "PreTrainedTokenizerBase":
    try:
        folder = locate(name, weights=False)
        return load_tokenizer(folder, what="no usable tokenizer (--tokenizer)")
    except ModelError as error:
        raise ModelError(
            f"{error}; or give a folder or hub id that holds one (--tokenizer)"
        ) from error
