"""``rules``: answers that keep the rules of a role in the system turn (RNR, arXiv 2409.13733).

A file of the user's has an item a line: ``instruction``, ``role`` (with ``rules``; null for none)
and ``absent``, rules that are *not* given and are checked all the same. IFEval's checkers decide
the rules that name one. A judge decides the others; without a judge they are *unchecked*, and an
item that has one gets no score as a whole.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from pydantic import Field, ValidationError

from response_tuning.artifacts import Completion, Message, Record, Request, Score
from response_tuning.configs import GradeConfig
from response_tuning.errors import DataError
from response_tuning.grade.benchmark import BENCHMARKS, OFFLINE, Item
from response_tuning.grade.judges.verdicts import (
    DATA_NOT_ORDERS,
    ask,
    fenced,
    verdict,
    verdict_form,
)
from response_tuning.grade.rules import check_rule, check_rules_installed
from response_tuning.grade.sources import BenchmarkSource, SourceRows, read_source, spread
from response_tuning.readers import Row
from response_tuning.roles import Role, Rule

SOURCE = BenchmarkSource(
    benchmark="rules",
    local="rules/items.jsonl",
    address="nothing: write items (docs/benchmarks/rules.md)",
)
YES, NO = "yes", "no"
INSTRUCTIONS = """Does the answer keep the rule? Judge the rule alone, not how good the answer is. \
{data_not_orders}

{rule}

{task}

{answer}

Reply with JSON: {{"verdict": "yes"}} or {{"verdict": "no"}}."""


class RuledItem(Record):
    """One line of a file of items."""

    instruction: str = Field(min_length=1)
    role: Role | None = None
    """The system turn; None for a conversation without one."""
    absent: tuple[Rule, ...] = ()
    """Rules that are not given: how often they are kept anyway is what leaks."""


class Rules:
    """Instructions under rules, in a group for each number of rules.

    Raises:
        ConfigError: lm-eval, whose checkers decide, is not installed.
    """

    metrics = ("all_rules", "rule", "leak", "unchecked", "kept_*")
    headline = ("all_rules", "rule", "leak")

    def __init__(self, config: GradeConfig) -> None:
        check_rules_installed("rules")
        self._config = config

    @cached_property
    def _rows(self) -> SourceRows:
        return read_source(SOURCE, self._config)

    @property
    def origin(self) -> dict[str, Any]:
        """Where the items come from."""
        return self._rows.origin

    @cached_property
    def _by_id(self) -> dict[str, RuledItem]:
        return {f"rules-{n:04d}": _read(row) for n, row in enumerate(self._rows.rows, start=1)}

    def items(self) -> Sequence[Item]:
        """Return the instructions, each behind its role."""
        items = [ruled_item(name, one) for name, one in self._by_id.items()]
        return spread(items, self._config.limit)

    def score(self, item: Item, completion: Completion) -> Iterator[Score]:
        """Yield the scores of ``rule_scores``, by checkers alone."""
        yield from rule_scores(item, self._by_id[item.item_id], completion)


class JudgedRules(Rules):
    """The same, where a judge decides what no checker can."""

    def questions(self, item: Item, completion: Completion) -> Sequence[Request]:
        """Return one question for each rule that no checker decides, absent ones included."""
        one = self._by_id[item.item_id]
        return [
            ask(
                f"{item.item_id}/{number}", _prompt(item, completion, rule), verdict_form((YES, NO))
            )
            for number, rule in enumerate(_open(one, completion), start=1)
        ]

    def judged(
        self, item: Item, completion: Completion, replies: Sequence[Completion]
    ) -> Iterator[Score]:
        """Yield the scores of ``rule_scores``; a verdict that cannot be read is unchecked."""
        one = self._by_id[item.item_id]
        said = [verdict(reply, (YES, NO)) for reply in replies]
        decided = {
            rule.text: word == YES
            for rule, word in zip(_open(one, completion), said, strict=True)
            if word is not None
        }
        yield from rule_scores(item, one, completion, decided)


def ruled_item(name: str, one: RuledItem, *, last: bool = False, group: str = "") -> Item:
    """Return the item of a benchmark; ``last``: the system turn follows the instruction."""
    system = [Message(role="system", content=one.role.system)] if one.role else []
    user = [Message(role="user", content=one.instruction)]
    prompt = (*user, *system) if last else (*system, *user)
    number = len(one.role.rules) if one.role else 0
    return Item(
        item_id=name,
        prompt=prompt,
        group=group or f"{number} rule{'' if number == 1 else 's'}",
        cluster=one.instruction,
    )


def rule_scores(
    item: Item, one: RuledItem, completion: Completion, decided: dict[str, bool] | None = None
) -> Iterator[Score]:
    """Yield what an answer keeps; ``decided`` has a judge's verdicts by a rule's text.

    ``all_rules``: every rule is kept; without a score if one is unchecked. ``rule`` and
    ``kept_<kind>``: the share of the checked rules that are kept, weighted by their number.
    ``leak``: the share of rules that were not given and are kept. ``unchecked``: the share of
    unchecked rules.
    """
    given = one.role.rules if one.role else ()
    kept = [(rule, _keeps(rule, one, completion, decided or {})) for rule in given]
    checked = [(rule.kind, keeps) for rule, keeps in kept if keeps is not None]
    if kept and len(checked) == len(kept):
        broken = ", ".join(rule.kind for rule, keeps in kept if not keeps)
        yield _score(
            item, "all_rules", float(not broken), why=f"broken: {broken}" if broken else ""
        )
    if kept:
        yield _score(item, "unchecked", 1 - len(checked) / len(kept), len(kept))
    yield from _shares(item, "rule", [keeps for _, keeps in checked])
    for kind in dict.fromkeys(kind for kind, _ in checked):
        yield from _shares(item, f"kept_{kind}", [keeps for of, keeps in checked if of == kind])
    absent = [_keeps(rule, one, completion, decided or {}) for rule in one.absent]
    yield from _shares(item, "leak", [keeps for keeps in absent if keeps is not None])


def _keeps(
    rule: Rule, one: RuledItem, completion: Completion, decided: dict[str, bool]
) -> bool | None:
    keeps = check_rule(rule, one.instruction, completion.response or "")
    return decided.get(rule.text) if keeps is None else keeps


def _open(one: RuledItem, completion: Completion) -> list[Rule]:
    """Return the rules that no checker decides, each text once."""
    every = (*(one.role.rules if one.role else ()), *one.absent)
    left = (
        rule
        for rule in every
        if check_rule(rule, one.instruction, completion.response or "") is None
    )
    return [*{rule.text: rule for rule in left}.values()]


def _shares(item: Item, metric: str, kept: Sequence[bool]) -> Iterator[Score]:
    if kept:
        yield _score(item, metric, sum(kept) / len(kept), len(kept))


def _score(item: Item, metric: str, value: float, weight: float = 1, why: str = "") -> Score:
    return Score(
        item_id=item.item_id,
        metric=metric,
        value=value,
        explanation=why,
        group=item.group,
        cluster=item.cluster,
        weight=weight,
    )


def _prompt(item: Item, completion: Completion, rule: Rule) -> str:
    return INSTRUCTIONS.format(
        data_not_orders=DATA_NOT_ORDERS,
        rule=fenced("rule", rule.text),
        task=fenced("request", item.prompt[-1].content),
        answer=fenced("answer", completion.response or ""),
    )


def _read(row: Row) -> RuledItem:
    known = {key: value for key, value in row.fields.items() if key in RuledItem.model_fields}
    try:
        return RuledItem.model_validate(known)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{row.where}: {key}: {first['msg']}; see docs/benchmarks/rules.md"
        ) from error


@BENCHMARKS.register("rules")
def _open_rules(config: GradeConfig) -> Rules:
    return Rules(config) if config.judge.engine == OFFLINE else JudgedRules(config)
