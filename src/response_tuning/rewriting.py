"""What a model is asked to write in place of a response, and what may come of it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Material = Literal["response", "passage", "half"]
"""What the model sees: a response or a passage to rewrite, or half of a text to continue."""
RefinementOutcome = Literal[
    "refined",
    "unchanged",
    "no-marker",
    "empty",
    "truncated",
    "refused",
    "filtered",
    "comment",
    "copy",
    "error",
]
Policy = Literal["keep", "drop", "retry"]
POLICIES: Mapping[RefinementOutcome, Policy] = MappingProxyType(
    {
        "unchanged": "keep",
        "no-marker": "retry",
        "empty": "retry",
        "truncated": "retry",
        "refused": "keep",
        "filtered": "keep",
        "error": "retry",
    }
)
"""Default policy for each outcome of a rewrite other than ``refined``."""
HALF_POLICIES: Mapping[RefinementOutcome, Policy] = MappingProxyType(
    {
        "empty": "retry",
        "truncated": "retry",
        "refused": "retry",
        "comment": "retry",
        "copy": "retry",
        "filtered": "drop",
        "error": "retry",
    }
)
"""The same for a continuation. None keeps the original: the set then has a single writer."""


def policies_of(material: Material) -> Mapping[RefinementOutcome, Policy]:
    """Return the default policy for each outcome that this material can have, but ``refined``."""
    return HALF_POLICIES if material == "half" else POLICIES
