"""Settings of data with roles and rules (RNR, Wang et al. 2024, arXiv 2409.13733)."""

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from response_tuning.artifacts import Record


class RolesConfig(Record):
    """A model writes a role with rules for each instruction, and answers in that role.

    ``refinement`` names the model. Settings that the paper does not report are choices.
    """

    model_config = ConfigDict(use_attribute_docstrings=True)

    fewest_rules: int = Field(default=1, ge=1)
    """The smallest number of rules that a role has; each number from it to ``most_rules`` is
    equally likely."""
    most_rules: int = Field(default=5, le=20)
    """The largest number of rules that a role has."""
    keep_uninformative: bool = False
    """Keep rules that the plain response already meets: a model may then pass without reading
    its system turn."""
    judge: bool = True
    """Ask the same model about rules that no checker can decide. Otherwise such rules are
    dropped."""
    plain: bool = True
    """Add each row once more without a system turn and with its plain response, so that the
    absence of rules is learnt too."""
    system: Literal["given", "none", "shuffled"] = "given"
    """What stands in front of the response: its own role and rules, none, or (a control) those of
    another row."""

    @model_validator(mode="after")
    def _possible_together(self) -> Self:
        if self.fewest_rules > self.most_rules:
            raise ValueError(
                f"fewest_rules {self.fewest_rules} is above most_rules {self.most_rules}"
            )
        return self
