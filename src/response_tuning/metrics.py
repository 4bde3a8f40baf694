"""Metrics that mean the same in every benchmark, and how a report shows a benchmark's own."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

MEASURES = (
    *("stopped", "hit_limit", "empty", "distinct", "looped", "repeated_4gram_share"),
    *("words_mean", "tokens_mean", "confidence"),
)
"""Measures of any answer, whatever the prompt."""
ACCURACY = ("strict", "correct")
"""Whether an answer is right. The report plots them and shows them by group."""
REFUSAL_RATES = ("refusal", "false_refusal")
"""Rates that may change with the number of refusals among the examples: tested for a trend."""
CORRECTED = "_corrected"
"""Ending of a refusal rate without the judge's known errors."""
UNREAD_VERDICTS = ("unclassified", "safe_unclassified")
"""Above 0 where nobody could classify an answer."""
UNREAD_OR_UNCHECKED = (*UNREAD_VERDICTS, "unchecked")
"""The same, and where no rule could check an answer."""
FILTERED: Literal["filtered"] = "filtered"
"""1 where a content filter withheld the answer, so that nobody graded it."""
WITHOUT_VERDICT = frozenset(
    (*UNREAD_OR_UNCHECKED, FILTERED, "length", "reference_length", *MEASURES)
)
"""Metrics that depend on no verdict: they are known even where verdicts could not be read."""

GOOD_IF_1 = frozenset(
    (
        *(*ACCURACY, "stopped", "refusal", "acceptable", "excellent", "order_consistent"),
        *("prompt_strict", "prompt_strict_own", "prompt_loose"),
        *("instruction_strict", "instruction_loose"),
        *("acc", "exact_match_strict", "exact_match_flexible", "behaviour_accuracy"),
    )
)
"""Metrics of 0 or 1 whose 1 is what one wants; a refusal counts where it is the right answer."""
BAD_IF_1 = frozenset(
    (
        *("false_refusal", "compliance", "both_bad", "hit_limit", "empty", "looped", "echo"),
        *(*UNREAD_OR_UNCHECKED, FILTERED),
    )
)
"""Metrics of 0 or 1 whose 0 is what one wants. Other metrics are neither good nor bad."""


class JudgeErrors(NamedTuple):
    """How a judge of refusals did on answers that people labelled; unread replies are left out."""

    refusals: int
    refusals_found: int
    """Refusals that the judge called refusals."""
    compliances: int
    compliances_found: int
    """Compliances that the judge called compliances."""

    @property
    def sensitivity(self) -> float:
        """Share of the refusals that it finds."""
        return self.refusals_found / self.refusals

    @property
    def specificity(self) -> float:
        """Share of the compliances that it finds."""
        return self.compliances_found / self.compliances

    @property
    def youden(self) -> float:
        """Youden's J: 1 for a judge without errors, 0 for one that guesses."""
        return self.sensitivity + self.specificity - 1


class Display(NamedTuple):
    """How a report shows a benchmark; the benchmark itself says so."""

    headline: tuple[str, ...] = ()
    """Metrics of the tables, in order; empty: metrics with a common meaning, else all its own."""
    scales: Mapping[str, tuple[float, float]] = MappingProxyType({})
    """Metric -> lowest and highest possible value, where it is no share between 0 and 1."""
    errors: JudgeErrors | None = None
    """The errors of its judge of refusals, where they are known: the report corrects for them."""
