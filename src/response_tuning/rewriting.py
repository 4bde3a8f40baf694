"""What a model is asked to write in place of a response, and what may come of it."""

from collections.abc import Container, Mapping
from types import MappingProxyType
from typing import Any, Literal

from response_tuning.continuation_config import WORDS

Material = Literal["response", "restatement", "passage", "half", "role"]
"""What the model gets: a response or a passage to rewrite, a response whose opening restates its
instruction, half of a text to continue, or an instruction to write a role for."""
RefinementOutcome = Literal[
    "refined",
    "not-asked",
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
    if material == "role":  # a response that breaks a rule is never used
        return {}
    if material == "restatement":  # the other responses stay as they are
        return {"not-asked": "keep", **POLICIES}
    return HALF_POLICIES if material == "half" else POLICIES


def with_material(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of ``DataConfig`` with the defaults that follow from its sections."""
    values, cut = {**data}, data.get("continuation") is not None
    if cut and isinstance(extraction := values.get("extraction") or {}, Mapping):
        values["extraction"] = {**WORDS, **extraction}
    refinement, roles = values.get("refinement"), values.get("roles") is not None
    if isinstance(refinement, Mapping) and (roles or values.get("extraction") is not None):
        material = "role" if roles else "half" if cut else "passage"
        values["refinement"] = {"material": material, **refinement}
    return values


def check_material(material: Material, sections: Container[str]) -> None:
    """Refuse a material without the section that makes it, and a section without it.

    ``sections`` are the materials whose sections are given.

    Raises:
        ValueError: they do not go together.
    """
    for own, name in (("half", "continuation"), ("role", "roles")):
        if (material == own) != (own in sections):
            raise ValueError(f"refinement.material '{own}' and a section {name} go together")


def with_policies(refinement: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of ``RefinementConfig`` with the defaults that follow from its material."""
    values = {**refinement}
    if values.get("material") in ("half", "role"):
        values = {"after_retries": "drop", **values}
    if values.get("material") == "half":
        values = {"request": "continue", **values}
    return values


def check_policies(
    material: Material, policies: Mapping[RefinementOutcome, Policy], after_retries: str
) -> None:
    """Refuse policies for outcomes that a material cannot have, and a mixture of two writers.

    Raises:
        ValueError: such a policy is given.
    """
    for outcome in policies.keys() - policies_of(material).keys():
        raise ValueError(f"policies: a {material} has no outcome '{outcome}'")
    if material in ("half", "role") and "keep" in (after_retries, *policies.values()):
        raise ValueError(
            "policy 'keep' would mix the source's texts into a writer's; use drop or retry"
        )
