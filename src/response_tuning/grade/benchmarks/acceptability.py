"""Acceptability: is an answer excellent, sufficient, or not acceptable, as a judge sees it?

The instructions are AlpacaEval's; the levels are those that three people chose from in the paper's
section 4 (Figure 2, Tables 6 and 11), in our own words. ``rating.py`` asks people the same.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from response_tuning.artifacts import Completion, Request, Score
from response_tuning.configs import GradeConfig
from response_tuning.grade.benchmark import BENCHMARKS, Item
from response_tuning.grade.benchmarks.alpaca_eval import AlpacaEval
from response_tuning.grade.judges.levels import LEVEL_METRICS, LEVELS, level_metrics
from response_tuning.grade.judges.verdicts import (
    DATA_NOT_ORDERS,
    ask,
    fenced,
    kept_from,
    verdict,
    verdict_form,
)

PROMPT = """\
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


class Acceptability:
    """AlpacaEval's 805 instructions, and a judge that puts each answer on a level."""

    metrics = (*LEVEL_METRICS, "unclassified")

    def __init__(self, config: GradeConfig) -> None:
        # Difficulties belong to a comparison of answers, which this is not.
        self._asked = AlpacaEval(config.model_copy(update={"difficulties": None}))

    @property
    def origin(self) -> dict[str, Any]:
        """Where the instructions are from."""
        return self._asked.origin

    def items(self) -> Sequence[Item]:
        """Return the instructions of ``alpaca-eval``, with its ids and groups."""
        return self._asked.items()

    def questions(self, item: Item, completion: Completion) -> Sequence[Request]:
        """Return one question; an empty answer needs no judge."""
        answer = completion.response or ""
        if not answer.strip():
            return []
        return [ask(item.item_id, judge_prompt(item, answer), verdict_form([*LEVELS]))]

    def judged(
        self, item: Item, completion: Completion, replies: Sequence[Completion]
    ) -> Iterator[Score]:
        """Yield each level and ``acceptable``, which is either of the two upper ones.

        Of a reply that cannot be read there is ``unclassified`` alone.
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
    """Return what a judge is asked about an answer."""
    return PROMPT.format(
        data_not_orders=DATA_NOT_ORDERS,
        request=fenced("request", item.prompt[-1].content),
        answer=fenced("answer", answer),
        levels="\n".join(f"- {level}, if it {meaning}" for level, meaning in LEVELS.items()),
        labels=" or ".join(LEVELS),
    )


@BENCHMARKS.register("acceptability")
def acceptability(config: GradeConfig) -> Acceptability:
    """Return the benchmark."""
    return Acceptability(config)
