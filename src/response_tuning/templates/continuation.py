"""A tokenizer that reads a text as the continuation of another one.

A prompt and its reply are tokenized apart, in training and in scoring, so that no token
straddles the boundary between them.
"""

import json
from typing import TYPE_CHECKING, Any

from response_tuning.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase


def continuation_tokenizer(tokenizer: "PreTrainedTokenizerBase") -> "Tokenizer":
    """Return a copy of the tokenizer's backend that reads a text as the middle of a longer one.

    It adds no dummy space in front (SentencePiece's habit, as in Llama-2) and no special tokens,
    and it reads the names of special tokens as plain text: a response that quotes ``</s>`` does
    not end there.

    Raises:
        ModelError: the tokenizer has no ``tokenizers`` backend.
    """
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            f"{type(tokenizer).__name__} has no fast version; save the base with a tokenizer.json"
        )
    # A tokenizer's parts cannot be changed in place without changing the one that the user has.
    spec = json.loads(backend.to_str())
    spec.update(post_processor=None, truncation=None, padding=None)
    spec["normalizer"] = _without_dummy_prefix(spec["normalizer"])
    spec["pre_tokenizer"] = _without_dummy_prefix(spec["pre_tokenizer"])
    copy = Tokenizer.from_str(json.dumps(spec))
    copy.encode_special_tokens = True
    return copy


def _without_dummy_prefix(part: dict[str, Any] | None) -> dict[str, Any] | None:
    """Remove the dummy prefix from one part of a ``tokenizer.json``, nested parts included."""
    if part is None or part["type"] == "Prepend":
        return None
    part = dict(part)
    for key in ("normalizers", "pretokenizers"):
        if key in part:
            inner = [_without_dummy_prefix(child) for child in part[key]]
            part[key] = [child for child in inner if child is not None]
    if part["type"] == "Metaspace":
        part["prepend_scheme"] = "never"
    if part["type"] == "ByteLevel":
        part["add_prefix_space"] = False
    return part
