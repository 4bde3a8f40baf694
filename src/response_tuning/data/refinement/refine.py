"""An LLM rewrites responses, and what came of every single one is written down (appendix G).

Every response is asked for once; what a policy says to ask again is asked in rounds, each a new
question with another seed and temperature, except that an error is no answer: the same question
is asked again.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal, NamedTuple, get_args

from response_tuning.artifacts import (
    Completion,
    Dropped,
    Example,
    FinishReason,
    Record,
    Request,
    read_json,
    read_jsonl,
    write_json,
    written_aside,
)
from response_tuning.configs import POLICIES, RefinementConfig, RefinementOutcome
from response_tuning.data.refinement.prompt import ask_for_rewrite, prompt_digest
from response_tuning.data.refinement.reply import Verdict, judge
from response_tuning.data.steps.refusals import is_refusal
from response_tuning.errors import DataError, EngineError

OUTCOMES: tuple[RefinementOutcome, ...] = get_args(RefinementOutcome)
Say = Callable[[Iterable[Request]], Iterator[Completion]]


class Refinement(Record):
    """What came of one response."""

    row: int
    turn: int
    outcome: RefinementOutcome
    """Of the last reply."""
    used: Literal["refined", "original", "nothing"]
    """What is among the examples."""
    asked: int
    """How often a reply was asked for, errors included."""
    original: str
    refined: str | None
    """The rewrite, if there was one, used or not."""
    finish_reason: FinishReason | None
    tokens: int | None
    prompt_tokens: int | None
    error: str | None
    key: str
    """Of the last reply, by which the journal knows it."""


class _Reply(NamedTuple):
    """The last reply for one example, without the prompt, which is long."""

    verdict: Verdict
    finish_reason: FinishReason | None
    tokens: int | None
    prompt_tokens: int | None
    error: str | None
    key: str
    asked: int = 1
    attempt: int = 0
    """Which sampling it was drawn with."""


def refine(source: Path, attempts: Sequence[Say], config: RefinementConfig, out: Path) -> None:
    """Rewrite the examples in ``source``, which ``prepare`` left, into ``out``.

    ``attempts`` ask with the samplings of ``config.attempts()``. Leaves what ``prepare`` does,
    ``examples.jsonl``, ``dropped.jsonl`` and ``audit.json``, and beside them ``refinements.jsonl``,
    a ``Refinement`` for each example of ``source``, and ``refinement.json``, the counts.

    Raises:
        DataError: the policies leave no example.
        EngineError: not one response got a reply.
    """
    asking = _Asking(source / "examples.jsonl", attempts, config)
    replies = asking.replies()
    if all(reply.error is not None for reply in replies):
        raise EngineError(
            f"none of the {len(replies):,} responses got a reply, the first because: "
            f"{replies[0].error}"
        )
    tally = _write(source, replies, config, out)
    audit = read_json(source / "audit.json")
    audit["dropped"] = {**audit["dropped"], **tally.dropped}
    audit |= {"rows_kept": len(tally.rows), "examples": tally.examples}
    settings = config.model_dump(mode="json")
    audit["config"] = {"data": audit["config"], "refinement": settings}
    audit["refinement"] = {**asking.model, "prompt_digest": prompt_digest(config.material)}
    write_json(out / "audit.json", audit)
    write_json(out / "refinement.json", tally.summary(asking, config))


class _Asking:
    """Asks for rewrites, round by round, and remembers what that took."""

    def __init__(self, examples: Path, attempts: Sequence[Say], config: RefinementConfig) -> None:
        self._examples = examples
        self._attempts = attempts
        self._config = config
        self.model: dict[str, str] = {}
        """Identity of the model and of its chat template."""
        self.usage: dict[str, tuple[int | None, int | None]] = {}
        """Key of a reply -> tokens of its prompt and of itself."""

    def replies(self) -> list[_Reply]:
        """Return the last reply for every example, in the order of the file."""
        replies = [reply for _, reply in self._ask(0, None)]
        for _ in range(self._config.retries):
            again: dict[int, set[int]] = {}
            for place, reply in enumerate(replies):
                if self._is_asked_again(reply):
                    attempt = reply.attempt + (reply.error is None)
                    again.setdefault(attempt, set()).add(place)
            for attempt, places in again.items():
                for place, reply in self._ask(attempt, places):
                    replies[place] = reply._replace(asked=replies[place].asked + 1)
        return replies

    def _is_asked_again(self, reply: _Reply) -> bool:
        outcome = reply.verdict.outcome
        return outcome != "refined" and self._config.policy(outcome) == "retry"

    def _ask(self, attempt: int, places: set[int] | None) -> Iterator[tuple[int, _Reply]]:
        requests = (self._request(example) for _, example in self._picked(places))
        completions = self._attempts[attempt](requests)
        for (place, example), said in zip(self._picked(places), completions, strict=True):
            self.model = {"model": said.model, "template": said.template}
            if said.error is None:
                self.usage[said.key] = (said.prompt_tokens, said.tokens)
            yield (
                place,
                _Reply(
                    verdict=judge(said, example.response),
                    finish_reason=said.finish_reason,
                    tokens=said.tokens,
                    prompt_tokens=said.prompt_tokens,
                    error=said.error,
                    key=said.key,
                    attempt=attempt,
                ),
            )

    def _request(self, example: Example) -> Request:
        if self._config.instruction_blind:
            example = example.model_copy(update={"instruction": None, "earlier": ()})
        return ask_for_rewrite(example, self._config.material)

    def _picked(self, places: set[int] | None) -> Iterator[tuple[int, Example]]:
        for place, example in enumerate(read_jsonl(self._examples, Example)):
            if places is None or place in places:
                yield place, example


class _Tally:
    """Counts, example by example, what a refinement came to."""

    def __init__(self) -> None:
        self.outcomes: Counter[RefinementOutcome] = Counter(dict.fromkeys(OUTCOMES, 0))
        self.used = Counter({"refined": 0, "original": 0, "nothing": 0})
        self.rows: set[int] = set()
        """Rows that have an example left."""
        self.dropped: Counter[str] = Counter()
        self._asked = 0
        self._words: list[tuple[int, int]] = []
        """Of each original that was replaced, and of its replacement."""
        self._refusals = Counter({"original": 0, "left": 0})
        self._first_error: str | None = None

    @property
    def examples(self) -> int:
        """How many examples are left."""
        return self.used["refined"] + self.used["original"]

    def add(self, one: Refinement) -> None:
        """Count one response."""
        self.outcomes[one.outcome] += 1
        self.used[one.used] += 1
        self._asked += one.asked
        self._first_error = self._first_error or one.error
        self._refusals["original"] += is_refusal(one.original)
        if one.used == "nothing":
            self.dropped[_reason(one)] += 1
            return
        self.rows.add(one.row)
        self._refusals["left"] += is_refusal(_left(one))
        if one.used == "refined":
            self._words.append((len(one.original.split()), len(_left(one).split())))

    def summary(self, asking: _Asking, config: RefinementConfig) -> dict[str, Any]:
        """Return the counts, and under which settings of what model they came about."""
        prompt, reply = zip(*asking.usage.values(), strict=True)
        tokens = {"prompt": _total(prompt), "reply": _total(reply)}
        uncounted = sum(None in usage for usage in asking.usage.values())
        policies = {outcome: config.policy(outcome) for outcome in POLICIES}
        return {
            "responses": self.outcomes.total(),
            "outcomes": dict(self.outcomes),
            "used": dict(self.used),
            "asked": self._asked,
            "replies": len(asking.usage),
            "words": self._length_drift(),
            "refusals": dict(self._refusals),
            "tokens": {**tokens, "replies_not_counted": uncounted},
            "dollars": _cost(tokens, config),
            "first_error": self._first_error,
            **asking.model,
            "prompt_digest": prompt_digest(config.material),
            "config": config.model_dump(mode="json") | {"policies": policies},
        }

    def _length_drift(self) -> dict[str, float] | None:
        if not self._words:
            return None
        before, after = zip(*self._words, strict=True)
        ratios = (new / max(old, 1) for old, new in self._words)
        return {
            "original": round(fmean(before), 1),
            "refined": round(fmean(after), 1),
            "median_ratio": round(median(ratios), 3),
        }


def _write(source: Path, replies: Sequence[_Reply], config: RefinementConfig, out: Path) -> _Tally:
    tally = _Tally()
    dropped: list[Dropped] = []
    there = source / "examples.jsonl"
    with (
        written_aside(out / "examples.jsonl") as kept,
        written_aside(out / "dropped.jsonl") as left_out,
        written_aside(out / "refinements.jsonl") as told,
    ):
        read = zip(count(1), read_jsonl(there, Example), replies, strict=False)
        for line, example, reply in read:
            one = _settled(example, reply, config)
            told.write(one.model_dump_json() + "\n")
            tally.add(one)
            if one.used == "nothing":
                where = f"{there}:{line}"
                reason = _reason(one)
                dropped.append(Dropped(row=one.row, turn=one.turn, reason=reason, where=where))
            else:
                kept.write(example.model_copy(update={"response": _left(one)}).model_dump_json())
                kept.write("\n")
        if not tally.examples:
            raise DataError(f"{out}: nothing is left: {_listed(tally.dropped)} (--on)")
        before = read_jsonl(source / "dropped.jsonl", Dropped)
        for gone in heapq.merge(before, dropped, key=lambda gone: (gone.row, gone.turn)):
            left_out.write(gone.model_dump_json() + "\n")
        for name in ("audit.json", "refinement.json"):
            (out / name).unlink(missing_ok=True)  # old counts never stand by new examples
    return tally


def _settled(example: Example, reply: _Reply, config: RefinementConfig) -> Refinement:
    """Apply the policies to the last reply."""
    outcome, text = reply.verdict
    used: Literal["refined", "original", "nothing"] = "refined"
    if outcome != "refined":
        policy = config.policy(outcome)
        final = config.after_retries if policy == "retry" else policy
        used = "original" if final == "keep" else "nothing"
    return Refinement(
        row=example.row,
        turn=example.turn,
        outcome=outcome,
        used=used,
        asked=reply.asked,
        original=example.response,
        refined=text,
        finish_reason=reply.finish_reason,
        tokens=reply.tokens,
        prompt_tokens=reply.prompt_tokens,
        error=reply.error,
        key=reply.key,
    )


def _left(one: Refinement) -> str:
    """Return the text that is among the examples."""
    return one.refined if one.used == "refined" and one.refined is not None else one.original


def _reason(one: Refinement) -> str:
    return f"refinement: {one.outcome}"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts.items())


def _total(counts: Iterable[int | None]) -> int:
    return sum(number or 0 for number in counts)


def _cost(tokens: Mapping[str, int], config: RefinementConfig) -> float | None:
    """Return the price of all replies in dollars, whichever run asked for them."""
    if config.price_in is None or config.price_out is None:
        return None
    millionths = tokens["prompt"] * config.price_in + tokens["reply"] * config.price_out
    return round(millionths / 1e6, 6)
