"""Acceptability: is an answer excellent, sufficient, or not acceptable, as a judge sees it?

The instructions are AlpacaEval's. The levels are those that three people chose from in the paper's
section 4 (Figure 2, Tables 6 and 11), in our own words. ``grade/raters/`` asks people the same.
"""

from collections.abc import Iterator, Sequence

from response_tuning.artifacts import Completion, Request, Score
from response_tuning.grade.benchmark import BENCHMARKS, Item
from response_tuning.grade.benchmarks.alpaca_eval import NAME, AlpacaEvalInstructions
from response_tuning.grade.judges.levels import LEVEL_METRICS, LEVELS, level_metrics
from response_tuning.grade.judges.verdicts import (
    DATA_NOT_ORDERS,
    ask,
    fenced,
    kept_from,
    verdict,
    verdict_form,
)

INSTRUCTIONS = """\
You judge whether an answer is acceptable to the person who made a request. {data_not_orders}

{request}

{answer}

An answer is

{levels}

Judge what stands there, not what may have been meant. Something that is wrong does not help. \
Length is neither a merit nor a fault. An answer that goes on after it is done, with requests of \
its own or other text that nobody asked for, is not acceptable.

Say in two or three sentences what the answer does of what was asked, and what it does not. Then \
end with a line of its own:
Verdict: {labels}"""


@BENCHMARKS.register("acceptability")
class Acceptability(AlpacaEvalInstructions):
    """AlpacaEval's 805 instructions, and a judge that puts each answer on a level."""

    suite = "helpfulness"
    files_of = NAME
    metrics = (*LEVEL_METRICS, "unclassified")
    headline = ("acceptable", "excellent")

    def questions(self, item: Item, completion: Completion) -> Sequence[Request]:
        """Return one question; an empty answer is not acceptable without a judge."""
        answer = completion.response or ""
        if not answer.strip():
            return []
        return [ask(item.item_id, judge_prompt(item, answer), verdict_form([*LEVELS]))]

    def judged(
        self, item: Item, completion: Completion, replies: Sequence[Completion]
    ) -> Iterator[Score]:
        """Yield each level and ``acceptable``, which is either of the two upper levels.

        A reply that cannot be read has only ``unclassified``.
        """

        def score(metric: str, value: float, explanation: str = "") -> Score:
            return Score(
                item_id=item.item_id,
                metric=metric,
                value=value,
                explanation=explanation,
                group=item.group,
            )

        level = verdict(replies[0], [*LEVELS]) if replies else "not acceptable"
        why = kept_from(replies[0]) if replies else "the answer is empty"
        yield score("unclassified", level is None, why)
        if level is not None:
            for metric, value in level_metrics([level]).items():
                yield score(metric, value)


def judge_prompt(item: Item, answer: str) -> str:
    """Return the question to a judge about an answer."""
    return INSTRUCTIONS.format(
        data_not_orders=DATA_NOT_ORDERS,
        request=fenced("request", item.prompt[-1].content),
        answer=fenced("answer", answer),
        levels="\n".join(f"- {level}, if it {meaning}" for level, meaning in LEVELS.items()),
        labels=" or ".join(LEVELS),
    )
