"""System-only response tuning in which some rows keep their instruction: how few are enough?

    cd benchmarks
    rtune run whole_triplets.yaml --import whole_triplets

A whole row is shown as RNR shows it (Wang et al. 2024, arXiv 2409.13733): system turn, instruction
and response. The other rows are those of the objective ``system-only``.
"""

from pydantic import Field

from response_tuning.artifacts import Example, digest
from response_tuning.finetune.objectives import (
    OBJECTIVES,
    Another,
    ObjectiveConfig,
    Segment,
    build_objective,
)
from response_tuning.templates import Chat

DIGITS = 16
"""Hexadecimal ones of a digest."""


@OBJECTIVES.register("system-mostly")
class SystemMostly(ObjectiveConfig):
    """Learn p(response | system message), and in some rows p(response | system and instruction)."""

    whole: float = Field(ge=0, le=1)
    """Share of the instructions that are shown, with the plain response as with the styled one."""

    def __call__(self, example: Example, other: Another, chat: Chat) -> list[Segment]:
        """Return the segments of ``example``, by a digest of its instruction."""
        # Not by the number of the row: plain and styled responses take turns.
        if int(digest(str(example.instruction)), 16) < self.whole * 16**DIGITS:
            return build_objective("instruction-tuning")(example, other, chat)
        return build_objective("system-only")(example, other, chat)
