"""Triplets of (role and rules, instruction, response), from pairs (RNR, arXiv 2409.13733).

A model writes a role with rules for each instruction, and answers in that role. A rule that the
plain response already meets is dropped, and a response that breaks a rule is asked for again.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from response_tuning.artifacts import (
    Completion,
    Dropped,
    Example,
    Message,
    Record,
    Request,
    read_json,
    read_jsonl,
    write_json,
    written_aside,
)
from response_tuning.data.roles.requests import (
    ask_about_rule,
    ask_for_role,
    ask_in_role,
    keeps_rule,
    read_role,
    wording_digest,
)
from response_tuning.errors import DataError, EngineError
from response_tuning.roles import Role, Rule
from response_tuning.roles_config import RolesConfig
from response_tuning.thoughts import answer

Ask: TypeAlias = Callable[[Iterable[Request]], Iterator[Completion]]
Check: TypeAlias = Callable[[Rule, str, str], bool | None]
"""(rule, instruction, response) -> whether it is kept; None if no checker can tell."""
StylingOutcome = Literal[
    "styled", "no-instruction", "no-role", "uninformative", "broken-rule", "error"
]
STYLED = "styled.jsonl"


class Styled(Record):
    """What became of one example."""

    row: int
    turn: int
    outcome: StylingOutcome
    role: Role | None
    """With the rules that are left; None without a usable role."""
    rules_asked: int
    """Number of rules that the model was asked for."""
    plain_kept: int | None
    """How many of its rules the plain response keeps already."""
    kept_at_first: bool | None
    """Whether the first response in the role kept every rule."""
    response: str | None
    """The last response in the role, used or not."""


class _Work(NamedTuple):
    """One example on its way."""

    example: Example
    number: int
    role: Role | None = None
    plain_kept: int | None = None
    outcome: StylingOutcome = "no-role"
    kept_at_first: bool | None = None
    response: str | None = None


def style(
    source: Path,
    attempts: Sequence[Ask],
    check: Check,
    config: RolesConfig,
    seed: int,
    out: Path,
) -> int:
    """Give roles to the examples that ``prepare`` wrote to ``source``, into ``out``.

    ``attempts`` ask the model: the first sampling, then that of each retry. Writes the files of
    ``prepare``, ``styled.jsonl`` with a ``Styled`` for each example, and counts in ``roles.json``.
    Returns how many examples got no reply.

    Raises:
        DataError: no example is left.
        EngineError: the model gave no reply at all.
    """
    styling = _Styling(attempts, check, config)
    draw = random.Random(f"rules {seed}")
    works = [
        _Work(example, draw.randint(config.fewest_rules, config.most_rules))
        for example in read_jsonl(source / "examples.jsonl", Example)
    ]
    works = styling.finished(works)
    if not styling.model:
        raise EngineError(f"the model wrote none of {len(works):,} roles; {styling.first_error}")
    _write(source, works, config, seed, out)
    counts = _counts(works) | {"prompt_digest": wording_digest(), **styling.model}
    counts["first_error"] = styling.first_error
    write_json(out / "roles.json", counts | {"config": config.model_dump(mode="json")})
    return sum(work.outcome == "error" for work in works)


class _Styling:
    """Asks for roles, drops rules, and asks for responses until they keep the others."""

    def __init__(self, attempts: Sequence[Ask], check: Check, config: RolesConfig) -> None:
        self._attempts = attempts
        self._check = check
        self._config = config
        self.model: dict[str, str] = {}
        self.first_error = "it was asked nothing: no example has an instruction"

    def finished(self, works: Sequence[_Work]) -> list[_Work]:
        """Return every example with what became of it, in order."""
        done = [
            work if work.example.instruction else work._replace(outcome="no-instruction")
            for work in works
        ]
        for ask in self._attempts:
            self._each(done, "no-role", "error", step=partial(self._roles, ask))
        self._each(done, "uninformative", step=self._informative)
        for ask in self._attempts:
            self._each(done, "broken-rule", step=partial(self._answers, ask))
        return done

    def _each(
        self,
        works: list[_Work],
        *outcomes: StylingOutcome,
        step: Callable[[list[_Work]], list[_Work]],
    ) -> None:
        """Replace the examples with one of ``outcomes`` by what ``step`` makes of them."""
        places = [place for place, work in enumerate(works) if work.outcome in outcomes]
        for place, work in zip(places, step([works[place] for place in places]), strict=True):
            works[place] = work

    def _roles(self, ask: Ask, works: list[_Work]) -> list[_Work]:
        requests = (ask_for_role(work.example, work.number) for work in works)
        return [
            self._with_role(work, reply) for work, reply in zip(works, ask(requests), strict=True)
        ]

    def _with_role(self, work: _Work, reply: Completion) -> _Work:
        if reply.error is not None:
            self.first_error = reply.error
            return work._replace(outcome="error")
        self.model = {"model": reply.model, "template": reply.template}
        role = read_role(reply, work.number)
        # "uninformative" until a rule is found that the plain response does not keep.
        return work._replace(role=role, outcome="uninformative" if role else "no-role")

    def _informative(self, works: list[_Work]) -> list[_Work]:
        """Drop the rules that the plain responses keep, and those that nothing can decide."""
        kept = self._kept([(work, work.example.response) for work in works])
        return [self._left(work, held) for work, held in zip(works, kept, strict=True)]

    def _left(self, work: _Work, held: Sequence[bool | None]) -> _Work:
        assert work.role is not None
        rules = tuple(
            rule
            for rule, keeps in zip(work.role.rules, held, strict=True)
            if keeps is not None and (self._config.keep_uninformative or not keeps)
        )
        known = work._replace(plain_kept=sum(bool(keeps) for keeps in held))
        if not rules:
            return known
        role = work.role.model_copy(update={"rules": rules})
        return known._replace(role=role, outcome="broken-rule")

    def _answers(self, ask: Ask, works: list[_Work]) -> list[_Work]:
        requests = (ask_in_role(work.example, _role(work)) for work in works)
        replies = list(ask(requests))
        texts = [answer(reply).text.strip() if _ended(reply) else "" for reply in replies]
        kept = self._kept(list(zip(works, texts, strict=True)))
        return [
            self._with_answer(work, reply, text, all(held))
            for work, reply, text, held in zip(works, replies, texts, kept, strict=True)
        ]

    def _with_answer(self, work: _Work, reply: Completion, text: str, kept: bool) -> _Work:
        if reply.error is not None:
            self.first_error = reply.error
            return work
        usable = kept and bool(text)
        first = usable if work.kept_at_first is None else work.kept_at_first
        outcome: StylingOutcome = "styled" if usable else "broken-rule"
        return work._replace(outcome=outcome, kept_at_first=first, response=text or None)

    def _kept(self, answered: Sequence[tuple[_Work, str]]) -> list[list[bool | None]]:
        """Return for each response whether it keeps each rule; a judge decides the rest.

        None: no checker can tell, and there is no judge.
        """
        kept = [
            [self._check(rule, work.example.instruction or "", text) for rule in _role(work).rules]
            for work, text in answered
        ]
        if self._config.judge:
            open_ = [
                (place, number)
                for place, held in enumerate(kept)
                for number, keeps in enumerate(held)
                if keeps is None
            ]
            questions = (
                ask_about_rule(_role(work).rules[number], work.example, text)
                for place, number in open_
                for work, text in [answered[place]]
            )
            replies = self._attempts[0](questions) if open_ else ()
            for (place, number), reply in zip(open_, replies, strict=True):
                kept[place][number] = keeps_rule(reply)
        return kept


def _role(work: _Work) -> Role:
    assert work.role is not None
    return work.role


def _ended(reply: Completion) -> bool:
    return reply.response is not None and reply.finish_reason == "stop"


def _write(source: Path, works: Sequence[_Work], config: RolesConfig, seed: int, out: Path) -> None:
    styled = [work for work in works if work.outcome == "styled"]
    if not styled:
        counts = Counter(work.outcome for work in works)
        listed = ", ".join(f"{outcome} {number:,}" for outcome, number in counts.most_common())
        raise DataError(f"{out}: no example is left: {listed}")
    systems = _systems(styled, config, seed)
    with (
        written_aside(out / "examples.jsonl") as kept,
        written_aside(out / STYLED) as records,
        written_aside(out / "dropped.jsonl") as dropped,
    ):
        for record in read_jsonl(source / "dropped.jsonl", Dropped):
            dropped.write(record.model_dump_json() + "\n")
        for work in works:
            records.write(_record(work).model_dump_json() + "\n")
            if work.outcome != "styled":
                reason = f"roles: {work.outcome}"
                one = Dropped(row=work.example.row, turn=work.example.turn, reason=reason)
                dropped.write(one.model_dump_json() + "\n")
        for work, system in zip(styled, systems, strict=True):
            for example in _examples(work, system, plain=config.plain):
                kept.write(example.model_dump_json() + "\n")
    audit = read_json(source / "audit.json")
    lost = Counter(f"roles: {work.outcome}" for work in works if work.outcome != "styled")
    audit["dropped"] = {**audit["dropped"], **lost}
    audit["rows_kept"] = len({work.example.row for work in styled})
    audit["examples"] = len(styled) * (1 + config.plain)
    audit["roles"] = config.model_dump(mode="json")
    write_json(out / "audit.json", audit)


def _systems(styled: Sequence[_Work], config: RolesConfig, seed: int) -> list[Role | None]:
    """Return the role that stands in front of each response."""
    roles: list[Role | None] = [work.role for work in styled]
    if config.system == "none":
        return [None] * len(roles)
    if config.system == "shuffled":
        # A random cycle: nobody keeps their own role, unless there is only one row.
        order = random.Random(f"shuffled roles {seed}").sample(range(len(roles)), len(roles))
        following = dict(zip(order, [*order[1:], order[0]], strict=True))
        return [roles[following[place]] for place in range(len(roles))]
    return roles


def _examples(work: _Work, role: Role | None, *, plain: bool) -> Iterator[Example]:
    """Yield the response in its role, and the plain one of the same row behind it."""
    example = work.example
    system = (Message(role="system", content=role.system),) if role else ()
    yield example.model_copy(
        update={
            "turn": 2 * example.turn,
            "response": work.response,
            "earlier": (*system, *example.earlier),
        }
    )
    if plain:
        yield example.model_copy(update={"turn": 2 * example.turn + 1})


def _record(work: _Work) -> Styled:
    return Styled(
        row=work.example.row,
        turn=work.example.turn,
        outcome=work.outcome,
        role=work.role,
        rules_asked=work.number,
        plain_kept=work.plain_kept,
        kept_at_first=work.kept_at_first,
        response=work.response,
    )


def _counts(works: Sequence[_Work]) -> dict[str, Any]:
    """Return outcomes, and by number of rules the ceiling of a student and its floor."""
    by_number: dict[int, Mapping[str, Any]] = {}
    for number in sorted({len(work.role.rules) for work in works if work.role}):
        answered = [
            work.kept_at_first
            for work in works
            if work.role and len(work.role.rules) == number and work.kept_at_first is not None
        ]
        by_number[number] = {"answered": len(answered), "kept_at_first": sum(answered)}
    planned = [work for work in works if work.plain_kept is not None]
    return {
        "examples": len(works),
        "outcomes": dict(Counter(work.outcome for work in works)),
        "by_number": by_number,
        "rules_written": sum(work.number for work in planned),
        "rules_plain_keeps": sum(work.plain_kept or 0 for work in planned),
        "plain_keeps_all": sum(work.plain_kept == work.number for work in planned),
        "planned": len(planned),
    }
