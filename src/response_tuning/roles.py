"""Roles with rules, as a system turn: what data hold and what the benchmark ``rules`` asks.

Wang et al. 2024 (RNR, arXiv 2409.13733): a role says who speaks, and rules say how they answer.
"""

from typing import Any

from pydantic import Field

from response_tuning.artifacts import Record


class Rule(Record):
    """One requirement of every answer, which can be checked from the answer alone."""

    text: str = Field(min_length=1)
    kind: str = Field(min_length=1)
    """``form``, ``content``, ``tone``, ``language`` or ``scope``, or a name of the user's."""
    checker: str | None = None
    """Name of an IFEval instruction that checks it; None leaves it to a judge."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the checker."""


class Role(Record):
    """Who answers, and the rules of every answer."""

    role: str = Field(min_length=1)
    rules: tuple[Rule, ...]

    @property
    def system(self) -> str:
        """The system message: the role, then a rule a line."""
        return "\n".join([self.role, *(f"- {rule.text}" for rule in self.rules)])
