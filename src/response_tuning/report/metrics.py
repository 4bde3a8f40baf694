"""What the report knows of metrics by their names: which to show, in what order, and how."""

from collections.abc import Iterable

ACCURACY = ("strict", "correct")
"""Metrics that the accuracy plot and the table by family show."""
RATED = ("overall", "helpfulness", "clarity", "factuality", "depth", "engagement", "safety")
"""Metrics on a scale from 1 to 5, which are no shares even where all of them are 1."""
HEADLINE = (
    *(*ACCURACY, "stopped"),
    *("refusal", "false_refusal", "refusal_f1", "behaviour_accuracy"),
    *("length_controlled_win_rate", "win_rate"),
    *RATED,
    *("drfr", "prompt_strict", "instruction_strict", "prompt_loose", "instruction_loose"),
    *("acceptable", "excellent"),
    *("acc", "acc_norm", "exact_match", "exact_match_strict", "exact_match_flexible"),
    *("ranked_total", "ranked_per_token", "ranked_pmi", "pmi"),
)
"""Metrics that tables show, in this order; of a benchmark that has none of them, all its own."""
GENERAL = ("stopped", "hit_limit", "empty", "repeated_4gram_share", "tokens_mean")
"""Measures of any answer: not a benchmark's own. ``stopped`` is shown beside ``ACCURACY`` only."""
OUTCOMES = ("filtered",)
"""What became of answers that nobody graded; shown wherever there are any."""
TREND = ("refusal", "false_refusal")
"""Metrics that may change with the number of refusals among the examples."""
UNREAD = ("unclassified", "safe_unclassified", "unchecked")
"""Metrics that are above 0 where a judge's reply could not be read, or no rule be applied."""


def headline(metrics: Iterable[str]) -> tuple[str, ...]:
    """Return those of a benchmark's metrics that tables show."""
    there = sorted(metrics)
    general = () if {*ACCURACY} & {*there} else GENERAL
    named = [name for name in HEADLINE if name in there and name not in general]
    own = [name for name in there if name not in (*GENERAL, *OUTCOMES)]
    return (*(named or own or there), *(name for name in OUTCOMES if name in there and own))


def ordered(metrics: Iterable[str]) -> tuple[str, ...]:
    """Sort a benchmark's metrics: those of the headline, then its others, then general ones."""
    first = headline(metrics)
    rest = sorted({*metrics} - {*first}, key=lambda name: (name in GENERAL, name))
    return (*first, *rest)
