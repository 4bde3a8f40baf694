"""Grading one file of completions: every item is scored once, or nothing is written."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from response_tuning.artifacts import (
    Completion,
    Request,
    Score,
    read_jsonl,
    write_json,
    write_jsonl,
)
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError, DataError, EngineError
from response_tuning.grade.benchmark import (
    AnyBenchmark,
    Item,
    JudgedBenchmark,
    Outcome,
    Say,
    Totalled,
    Unanswered,
    open_benchmark,
)
from response_tuning.grade.measures import measures
from response_tuning.thoughts import answer
from response_tuning.unread import unread


class Answered(NamedTuple):
    """An item and what is graded of the answer to it."""

    item: Item
    completion: Completion
    """Without the model's thoughts."""
    outcome: Outcome | None = None
    """None: there is an answer."""
    why: str = ""


def grade(
    benchmark: str,
    completions: Path,
    out: Path,
    config: GradeConfig | None = None,
    say: Say | None = None,
) -> int:
    """Write the scores of a benchmark's completions, one a line, and return their number.

    ``say`` asks the judge. Numbers that are no means over the items, where the benchmark has any,
    are left beside the scores in ``<out without .jsonl>.totals.json``.

    Raises:
        ConfigError: there is no such benchmark, or it needs a judge and none is there.
        DataError: the completions are not exactly one for each item of the benchmark, or one of
            them is an error: it has to be asked again first.
        EngineError: the judge did not answer every question.
    """
    rule = open_benchmark(benchmark, config)
    answers = _by_item(completions)
    items = rule.items()
    _check(items, answers, benchmark, completions)
    answered = [_answered(item, answers[item.item_id]) for item in items]
    scores = [*_general(answered), *_scores(benchmark, rule, answered, say)]
    scores += _outcomes(rule, answered, scores)
    count = write_jsonl(out, scores)
    if isinstance(rule, Totalled):
        found = [] if unread(scores).too_many else [one.model_dump() for one in rule.totals(scores)]
        write_json(totals_file(out), {"totals": found})
    return count


def totals_file(scores: Path) -> Path:
    """Return the file beside ``scores`` that holds what is no mean over them."""
    return scores.with_name(f"{scores.stem}.totals.json")


def _answered(item: Item, completion: Completion) -> Answered:
    said = answer(completion)
    graded = completion.model_copy(update={"response": said.text})
    if completion.finish_reason == "filtered":
        return Answered(item, graded, "filtered", f"filtered: {completion.detail}")
    if said.thinking:
        return Answered(item, graded, "unclassified", "it is nothing but thoughts")
    return Answered(item, graded)


def _general(answered: Sequence[Answered]) -> Iterator[Score]:
    for one in answered:
        for metric, value in measures(one.completion):
            yield _score(one.item, metric, value)


def _outcomes(
    rule: AnyBenchmark, answered: Sequence[Answered], scores: Sequence[Score]
) -> Iterator[Score]:
    """Yield an outcome, if any item has it, for every item: its mean is a share of all."""
    outcomes: list[Outcome] = ["filtered"]
    if not isinstance(rule, Unanswered):  # which has its own shares of what is unclassified
        outcomes.append("unclassified")
    for outcome in outcomes:
        if any(one.outcome == outcome for one in answered):
            said = {score.item_id for score in scores if score.metric == outcome}
            for one in answered:
                if one.item.item_id not in said:
                    is_so = one.outcome == outcome
                    yield _score(one.item, outcome, float(is_so), one.why if is_so else "")


def _scores(
    name: str, rule: AnyBenchmark, answered: Sequence[Answered], say: Say | None
) -> Iterator[Score]:
    silent = [one for one in answered if one.outcome is not None]
    if isinstance(rule, Unanswered):
        for one in silent:
            assert one.outcome is not None
            yield from rule.unanswered(one.item, one.outcome, one.why)
    spoken = [one for one in answered if one.outcome is None]
    if not isinstance(rule, JudgedBenchmark):
        for one in spoken:
            yield from rule.score(one.item, one.completion)
        return
    if say is None:
        raise ConfigError(
            f"{name} needs a judge: name an engine and its model, such as --judge openai "
            "--judge-model MODEL --judge-url http://127.0.0.1:8000/v1"
        )
    asked = [rule.questions(one.item, one.completion) for one in spoken]
    replies = iter(_replies(name, [request for requests in asked for request in requests], say))
    for one, requests in zip(spoken, asked, strict=True):
        yield from rule.judged(one.item, one.completion, [*islice(replies, len(requests))])


def _score(item: Item, metric: str, value: float, explanation: str = "") -> Score:
    return Score(
        item_id=item.item_id,
        metric=metric,
        value=value,
        explanation=explanation,
        group=item.group,
    )


def _replies(name: str, requests: Sequence[Request], say: Say) -> list[Completion]:
    replies = list(say(requests))
    failed = [reply for reply in replies if reply.error is not None]
    if failed:
        raise EngineError(
            f"{name}: the judge gave no reply to {len(failed)} of {len(replies)} questions, the "
            f"first because: {failed[0].error}; the same command asks them again"
        )
    return replies


def _by_item(completions: Path) -> dict[str, Completion]:
    answers: dict[str, Completion] = {}
    for number, completion in enumerate(read_jsonl(completions, Completion), start=1):
        where = f"{completions}:{number}: item {completion.item_id}"
        if completion.error is not None:
            raise DataError(f"{where} has no answer ({completion.error}); generate it again first")
        if completion.item_id in answers:
            raise DataError(f"{where} is there twice")
        answers[completion.item_id] = completion
    return answers


def _check(
    items: Sequence[Item], answers: dict[str, Completion], benchmark: str, completions: Path
) -> None:
    """Refuse answers to other questions than the benchmark's, for their scores would mislead."""
    for item in items:
        answer = answers.get(item.item_id)
        if answer is None:
            raise DataError(f"{completions}: no answer to item {item.item_id} of {benchmark}")
        if answer.prompt != item.prompt:
            raise DataError(f"{completions}: item {item.item_id} is not what {benchmark} asks")
    if len(answers) > len(items):
        (other, *_) = answers.keys() - {item.item_id for item in items}
        raise DataError(f"{completions}: item {other} is none of {benchmark}")
