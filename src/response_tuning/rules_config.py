"""Settings of the rule adapter of Hewitt et al. 2024 (arXiv 2409.14254, section 6).

Three rules make a base model answer without any training. Their weights were tuned by hand on 56
prompts; the defaults are the published ones.
"""

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import ConfigDict, Field, FiniteFloat

from response_tuning.artifacts import Record

PUBLISHED: Mapping[str, float] = MappingProxyType(
    {
        "<": -4, " <": -4, "|": -4, " I": -5, "I": -5, "We": -3, "What": -5, " should": -6,
        " *": 1, " -": 1, "   ": 1, " #": 1, " ##": 1, "\n": 1, "!": 1,
    }
)  # fmt: skip
"""The 15 tokens of Llama-2 whose scores change, as text; the first three begin the tags of
``tulu``."""


class RulesConfig(Record):
    """Scores that are added to a model's log-probabilities at every token.

    p(token) is proportional to p_base(token) softmax(sum of the scores).
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    eos: float = Field(default=15.0, allow_inf_nan=False)
    """Score of the stop token once the answer has ``span`` tokens; before, it grows in proportion
    to the answer's tokens. 0 switches the rule off."""
    span: int = Field(default=250, ge=1)
    """See ``eos``. The default fits answers as long as LIMA's."""
    uniform: dict[str, FiniteFloat] = Field(default_factory=lambda: {**PUBLISHED})
    """Text of one token -> its score. Defaults to the published 15; ``{}`` switches it off."""
    tags: float = Field(default=-4.0, allow_inf_nan=False)
    """Score of the first token of each of the template's tags that ``uniform`` does not name: a
    tokenizer may read ``<|`` as one token. 0 switches this off."""
    diversity: float = Field(default=-1.5, allow_inf_nan=False)
    """Score of every token that the answer already has. 0 switches the rule off."""
    count_prompt: bool = False
    """Also count the tokens after the user's tag as used, as the released code does."""
    published_bug: bool = False
    """Give the stop token no score from ``span`` tokens on, as the released code does."""
