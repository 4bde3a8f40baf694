"""System-only response tuning in which some rows keep their instruction: how few are enough?

    cd benchmarks
    rtune run whole_triplets.yaml --import whole_triplets

A whole row is shown as RNR shows it (Wang et al. 2024, arXiv 2409.13733): system turn, instruction
and response. The other rows are those of the objective ``system-only``.
"""

import math

from pydantic import Field

from response_tuning.artifacts import Example
from response_tuning.finetune.objectives import (
    OBJECTIVES,
    Another,
    ObjectiveConfig,
    Segment,
    build_objective,
)
from response_tuning.templates import Chat


@OBJECTIVES.register("system-mostly")
class SystemMostly(ObjectiveConfig):
    """Learn p(response | system message), and in some rows p(response | system and instruction)."""

    whole: float = Field(ge=0, le=1)
    """Share of the source's rows that are whole, evenly spread."""

    def __call__(self, example: Example, other: Another, chat: Chat) -> list[Segment]:
        """Return the segments of ``example``, by the number of its row."""
        if math.floor((example.row + 1) * self.whole) > math.floor(example.row * self.whole):
            return build_objective("instruction-tuning")(example, other, chat)
        return build_objective("system-only")(example, other, chat)
