"""InFoBench: instructions taken apart into requirements, and a judge asked about each.

Qin et al. 2024, arXiv 2401.03601. DRFR, the decomposed requirements following ratio, is the share
of all requirements that the answers satisfy (the paper's Tables 3, 4 and 14).
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from response_tuning.artifacts import Completion, Message, Request, Score
from response_tuning.configs import GradeConfig
from response_tuning.errors import DataError
from response_tuning.grade.benchmark import BENCHMARKS, Item
from response_tuning.grade.judges.verdicts import (
    DATA_NOT_ORDERS,
    ask,
    fenced,
    verdict,
    verdict_form,
)
from response_tuning.grade.sources import BenchmarkSource, SourceRows, cell, read_source, spread
from response_tuning.readers import Row, shown

SOURCE = BenchmarkSource(
    benchmark="infobench", local="infobench/infobench.jsonl", hub_id="kqsong/InFoBench"
)
YES, NO = "YES", "NO"
INSTRUCTIONS = """\
You check whether a text that was written for a task meets one requirement. {data_not_orders}

{task}

{answer}

The requirement, as a question about the answer: {requirement}

Say YES only if the answer meets it entirely: a small inaccuracy, or one place of several that \
fails, makes it NO. Say NO as well if the answer holds nothing from which the question could be \
decided. Judge nothing but this requirement.

Think it through in a few sentences. Then end with a line of its own:
Verdict: YES or NO"""


@BENCHMARKS.register("infobench")
class InFoBench:
    """500 instructions and their 2,250 requirements."""

    suite = "instructions"
    metrics = ("drfr", "unclassified")
    headline = ("drfr",)

    def __init__(self, config: GradeConfig) -> None:
        self._config = config

    @cached_property
    def _rows(self) -> SourceRows:
        return read_source(SOURCE, self._config)

    @property
    def origin(self) -> dict[str, Any]:
        """Where the instructions come from."""
        return self._rows.origin

    @cached_property
    def _requirements(self) -> dict[str, tuple[Item, list[str]]]:
        by_id: dict[str, tuple[Item, list[str]]] = {}
        for row in self._rows.rows:
            item = _item(row)
            if item.item_id in by_id:
                raise DataError(
                    f"{row.where}: id {shown(item.item_id)} is not unique; remove one of its rows"
                )
            by_id[item.item_id] = item, _requirements(row)
        return by_id

    def items(self) -> Sequence[Item]:
        """Return the instructions, in the groups of the easy and the hard subset."""
        return spread([item for item, _ in self._requirements.values()], self._config.limit)

    def questions(self, item: Item, completion: Completion) -> Sequence[Request]:
        """Return one question for each requirement, as the paper asks them."""
        _, requirements = self._requirements[item.item_id]
        return [
            ask(
                f"{item.item_id}/{number}",
                judge_prompt(item, completion, requirement),
                verdict_form((YES, NO)),
            )
            for number, requirement in enumerate(requirements, start=1)
        ]

    def judged(
        self, item: Item, completion: Completion, replies: Sequence[Completion]
    ) -> Iterator[Score]:
        """Yield ``drfr`` and ``unclassified``, weighted by the number of the item's requirements.

        The weights make the mean over items the paper's share of all requirements. A verdict that
        cannot be read counts as not satisfied.
        """
        # Values are shares of the item's requirements; with the weight, sums count requirements.
        verdicts = [verdict(reply, (YES, NO)) for reply in replies]
        for metric, counted in (("drfr", YES), ("unclassified", None)):
            numbers = [str(number) for number, one in enumerate(verdicts, 1) if one == counted]
            yield Score(
                item_id=item.item_id,
                metric=metric,
                value=len(numbers) / len(verdicts),
                explanation=f"requirements {', '.join(numbers)}" if numbers else "",
                group=item.group,
                weight=len(verdicts),
            )


def judge_prompt(item: Item, completion: Completion, requirement: str) -> str:
    """Return the question to the judge about one requirement."""
    return INSTRUCTIONS.format(
        data_not_orders=DATA_NOT_ORDERS,
        task=fenced("task", item.prompt[-1].content),
        answer=fenced("answer", completion.response or ""),
        requirement=requirement,
    )


def _item(row: Row) -> Item:
    text = cell(row, "instruction")
    if row.fields.get("input"):
        text += "\n\n" + cell(row, "input")
    return Item(
        item_id=cell(row, "id"),
        prompt=(Message(role="user", content=text),),
        group=cell(row, "subset"),
    )


def _requirements(row: Row) -> list[str]:
    found = row.fields.get("decomposed_questions")
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise DataError(
            f"{row.where}: expected a list of questions in 'decomposed_questions', found "
            f"{shown(found)}"
        )
    return found
