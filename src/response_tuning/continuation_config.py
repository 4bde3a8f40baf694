"""Settings of documents that are cut in half, for tuning on continuations.

Xie, Syu and Lee 2024 (arXiv 2409.00096) tune on (first half of a text, a continuation of it).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, Self

from pydantic import ConfigDict, model_validator

from response_tuning.artifacts import Record

WORDS: Mapping[str, int] = MappingProxyType({"min_words": 75, "max_words": 750})
"""Lengths of the passages that are cut, unless ``extraction`` has others: about 100 to 1,000
tokens."""


class ContinuationConfig(Record):
    """Passages that are cut: the first half is the instruction, what follows is the response."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    cut: Literal["sentence", "exact"] = "sentence"
    """``sentence``: at the end of a sentence that is nearest to the middle; ``exact``: at the
    middle token, also inside a word."""
    tokenizer: str | None = None
    """Folder or hub id of the tokenizer that finds the middle. By default, words are counted."""

    @model_validator(mode="after")
    def _tokens_are_known(self) -> Self:
        if self.cut == "exact" and self.tokenizer is None:
            raise ValueError("cut 'exact' is at a token, so it needs a tokenizer")
        return self
