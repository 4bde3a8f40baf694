"""An LLM rewrites responses, and the outcome of each is recorded (the paper's appendix G).

The first round requests a rewrite of every response; later rounds retry the outcomes whose policy
is ``retry``. A retry has another seed and temperature, except after an error: the model gave no
reply, so the same request is sent again.
"""

import heapq
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Literal, NamedTuple

from response_tuning.artifacts import (
    Completion,
    Dropped,
    Example,
    FinishReason,
    Request,
    Sampling,
    read_json,
    read_jsonl,
    write_json,
    written_aside,
)
from response_tuning.configs import RefinementConfig
from response_tuning.data.refinement.continuations import (
    ask_to_continue,
    parse_continuation,
    wording_digest,
)
from response_tuning.data.refinement.decisions import Place, rejected_in
from response_tuning.data.refinement.prompt import ask_for_rewrite, prompt_digest
from response_tuning.data.refinement.reply import ParsedReply, parse_reply
from response_tuning.data.refinement.tally import Refinement, Tally, kept_text, reason
from response_tuning.data.steps.restatements import opening
from response_tuning.errors import DataError, EngineError
from response_tuning.rewriting import Policy, RefinementOutcome, policies_of

Rewriter = Callable[[Iterable[Request]], Iterator[Completion]]
"""Yields a completion for each request, with one sampling."""


class _LastReply(NamedTuple):
    """The last reply for one example, without the prompt, to save memory."""

    content: ParsedReply
    finish_reason: FinishReason | None
    tokens: int | None
    prompt_tokens: int | None
    error: str | None
    key: str
    requests: int = 1
    """Number of requests so far, errors included."""
    attempt: int = 0
    """Index of its sampling."""


_NOT_ASKED = _LastReply(ParsedReply("not-asked"), None, None, None, None, key="", requests=0)


def policy_of(config: RefinementConfig, outcome: RefinementOutcome) -> Policy:
    """Return what happens to a response with this outcome, which is not ``refined``."""
    return config.policies.get(outcome, policies_of(config.material)[outcome])


def attempts_of(config: RefinementConfig) -> list[Sampling]:
    """Return the sampling of the first attempt and of each retry."""
    first = config.sampling
    warm = max(first.temperature, config.retry_temperature)
    later = (
        first.model_copy(update={"seed": first.seed + number, "temperature": warm})
        for number in range(1, config.retries + 1)
    )
    return [first, *later]


def refine(source: Path, attempts: Sequence[Rewriter], config: RefinementConfig, out: Path) -> None:
    """Rewrite the examples that ``prepare`` wrote to ``source``, into ``out``.

    ``attempts`` use the samplings of ``attempts_of``, in this order. Writes the files of
    ``prepare`` (``examples.jsonl``, ``dropped.jsonl`` and ``audit.json``), ``refinements.jsonl``
    with a ``Refinement`` for each example of ``source``, and ``refinement.json`` with the counts.

    Raises:
        DataError: the policies drop every example, or there is nothing to rewrite.
        EngineError: no response got a reply.
    """
    rounds = _Rounds(source / "examples.jsonl", attempts, config)
    replies = rounds.replies()
    # A dead server is an error of the run, not a file full of failed responses.
    asked = [reply for reply in replies if reply.requests]
    if all(reply.error is not None for reply in asked):
        raise EngineError(
            f"none of the {len(asked):,} responses got a reply, the first because: {asked[0].error}"
        )
    tally = _write(source, replies, config, out)
    # The audit continues the one of ``prepare``: same rows, more reasons.
    audit = read_json(source / "audit.json")
    audit["dropped"] = {**audit["dropped"], **tally.dropped}
    audit |= {"rows_kept": len(tally.rows), "examples": tally.examples}
    settings = config.model_dump(mode="json")
    audit["config"] = {"data": audit["config"], "refinement": settings}
    audit["refinement"] = {**rounds.model, "prompt_digest": _prompt_digest(config)}
    write_json(out / "audit.json", audit)
    write_json(out / "refinement.json", _summary(tally, rounds, config))


class _Rounds:
    """Requests rewrites, round by round, and counts the tokens."""

    def __init__(
        self, examples: Path, attempts: Sequence[Rewriter], config: RefinementConfig
    ) -> None:
        self._examples = examples
        self._attempts = attempts
        self._config = config
        self.model: dict[str, str] = {}
        """Identities of the model and of its chat template."""
        self.usage: dict[str, tuple[int | None, int | None]] = {}
        """Key of a reply -> tokens of the prompt and of the reply."""

    def replies(self) -> list[_LastReply]:
        """Return the last reply for every example, in the order of the file."""
        replied = dict(self._request_all(0, self._restating()))
        replies = [replied.get(place, _NOT_ASKED) for place, _ in self._picked(None)]
        for _ in range(self._config.retries):
            # One round can mix attempts, as an error repeats its attempt. Each attempt is one batch
            # for the engine.
            places_of: dict[int, set[int]] = {}
            for place, reply in enumerate(replies):
                if self._is_retried(reply):
                    attempt = reply.attempt + (reply.error is None)
                    places_of.setdefault(attempt, set()).add(place)
            for attempt, places in places_of.items():
                for place, reply in self._request_all(attempt, places):
                    replies[place] = reply._replace(requests=replies[place].requests + 1)
        return replies

    def _restating(self) -> set[int] | None:
        """Return the places of the responses that restate their instruction; None means all."""
        if self._config.material != "restatement":
            return None
        every = self._picked(None)
        places = {place for place, one in every if opening(one.response, one.instruction)}
        if not places:
            raise DataError(
                f"{self._examples}: no response restates its instruction, so there is nothing to "
                "rewrite; remove refinement.material: restatement"
            )
        return places

    def _is_retried(self, reply: _LastReply) -> bool:
        outcome = reply.content.outcome
        return outcome != "refined" and policy_of(self._config, outcome) == "retry"

    def _request_all(
        self, attempt: int, places: set[int] | None
    ) -> Iterator[tuple[int, _LastReply]]:
        """Yield (place, reply) for the examples at ``places``; None means all."""
        # The engine may read many requests ahead, so the examples are read twice, once for the
        # requests and once beside the completions: neither pass holds the file in memory.
        requests = (self._request(example) for _, example in self._picked(places))
        completions = self._attempts[attempt](requests)
        for (place, example), reply in zip(self._picked(places), completions, strict=True):
            self.model = {"model": reply.model, "template": reply.template}
            if reply.error is None:
                self.usage[reply.key] = (reply.prompt_tokens, reply.tokens)
            yield (
                place,
                _LastReply(
                    content=self._parsed(reply, example),
                    finish_reason=reply.finish_reason,
                    tokens=reply.tokens,
                    prompt_tokens=reply.prompt_tokens,
                    error=reply.error,
                    key=reply.key,
                    attempt=attempt,
                ),
            )

    def _parsed(self, reply: Completion, example: Example) -> ParsedReply:
        if self._config.material == "half":
            return parse_continuation(reply, example.instruction or "")
        return parse_reply(reply, example.response)

    def _request(self, example: Example) -> Request:
        if self._config.material == "half":
            return ask_to_continue(example, bare=self._config.request == "bare")
        if self._config.instruction_blind:
            example = example.model_copy(update={"instruction": None, "earlier": ()})
        return ask_for_rewrite(example, self._config.material)

    def _picked(self, places: set[int] | None) -> Iterator[tuple[int, Example]]:
        for place, example in enumerate(read_jsonl(self._examples, Example)):
            if places is None or place in places:
                yield place, example


def _summary(tally: Tally, rounds: _Rounds, config: RefinementConfig) -> dict[str, Any]:
    """Return the counts, with the model and the settings behind them."""
    # ``usage`` is by reply key: a reply that several responses share was paid for once.
    prompt, reply = zip(*rounds.usage.values(), strict=True)
    tokens = {"prompt": _total(prompt), "reply": _total(reply)}
    uncounted = sum(None in usage for usage in rounds.usage.values())
    policies = {one: policy_of(config, one) for one in policies_of(config.material)}
    return {
        **tally.counts(),
        "asked": tally.asked,
        "replies": len(rounds.usage),
        "tokens": {**tokens, "replies_not_counted": uncounted},
        "dollars": _cost(tokens, config),
        "first_error": tally.first_error,
        **rounds.model,
        "prompt_digest": _prompt_digest(config),
        "config": config.model_dump(mode="json") | {"policies": policies},
    }


def _write(
    source: Path, replies: Sequence[_LastReply], config: RefinementConfig, out: Path
) -> Tally:
    """Write the files of a refinement and return its counts."""
    tally = Tally(("refined", *policies_of(config.material)))
    rejected = rejected_in(out)
    dropped: list[Dropped] = []
    examples = source / "examples.jsonl"
    with (
        written_aside(out / "examples.jsonl") as kept,
        written_aside(out / "dropped.jsonl") as left_out,
        written_aside(out / "refinements.jsonl") as refinements,
    ):
        numbered = zip(count(1), read_jsonl(examples, Example), replies, strict=False)
        for line, example, reply in numbered:
            one = _settled(example, reply, config, rejected)
            refinements.write(one.model_dump_json() + "\n")
            tally.add(one)
            if one.used == "nothing":
                where = f"{examples}:{line}"
                why = reason(one)
                dropped.append(Dropped(row=one.row, turn=one.turn, reason=why, where=where))
            else:
                kept.write(
                    example.model_copy(update={"response": kept_text(one)}).model_dump_json()
                )
                kept.write("\n")
        if not tally.examples:
            raise DataError(f"{out}: no example is left: {_listed(tally.dropped)} (--on)")
        # ``prepare`` and this loop both keep the order of the source, so a merge keeps it too.
        before = read_jsonl(source / "dropped.jsonl", Dropped)
        for record in heapq.merge(before, dropped, key=lambda record: (record.row, record.turn)):
            left_out.write(record.model_dump_json() + "\n")
        for name in ("audit.json", "refinement.json"):
            (out / name).unlink(missing_ok=True)  # old counts must never describe new examples
    return tally


def _settled(
    example: Example,
    reply: _LastReply,
    config: RefinementConfig,
    rejected: Container[Place],
) -> Refinement:
    """Apply the policies, and what a person rejected, to the last reply."""
    # A ``retry`` that gets here has used up its retries: ``after_retries`` decides.
    outcome, text = reply.content
    used: Literal["refined", "original", "nothing"] = "refined"
    if outcome != "refined":
        policy = policy_of(config, outcome)
        final = config.after_retries if policy == "retry" else policy
        used = "original" if final == "keep" else "nothing"
    elif (example.row, example.turn, reply.key) in rejected:
        used = "original"
    return Refinement(
        row=example.row,
        turn=example.turn,
        outcome=outcome,
        used=used,
        asked=reply.requests,
        half=example.instruction if config.material == "half" else None,
        original=example.response,
        refined=text,
        finish_reason=reply.finish_reason,
        tokens=reply.tokens,
        prompt_tokens=reply.prompt_tokens,
        error=reply.error,
        key=reply.key,
    )


def _prompt_digest(config: RefinementConfig) -> str:
    if config.material != "half":
        return prompt_digest(config.material)
    return "bare" if config.request == "bare" else wording_digest()


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts.items())


def _total(counts: Iterable[int | None]) -> int:
    return sum(number or 0 for number in counts)


def _cost(tokens: Mapping[str, int], config: RefinementConfig) -> float | None:
    """Return the price of all replies in dollars, including earlier runs."""
    if config.price_in is None or config.price_out is None:
        return None
    millionths = tokens["prompt"] * config.price_in + tokens["reply"] * config.price_out
    return round(millionths / 1e6, 6)
