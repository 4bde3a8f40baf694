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
    AskJudge,
    Item,
    JudgedBenchmark,
    Totalled,
    Unanswered,
    UnjudgedReason,
    open_benchmark,
)
from response_tuning.grade.effect import needed_judge
from response_tuning.grade.measures import measures
from response_tuning.metrics import FILTERED
from response_tuning.thoughts import answer
from response_tuning.unread import unread


class AnsweredItem(NamedTuple):
    """An item with the answer that is graded."""

    item: Item
    completion: Completion
    """Without the model's thoughts."""
    unjudged: UnjudgedReason | None = None
    """Why the answer is not judged; None: it is."""
    why: str = ""


def grade(
    benchmark: str,
    completions: Path,
    out: Path,
    config: GradeConfig | None = None,
    ask_judge: AskJudge | None = None,
) -> int:
    """Write the scores of a benchmark's completions, one a line, and return their number.

    If the benchmark has numbers that are not means over its items, they go to
    ``<out without .jsonl>.totals.json`` beside the scores.

    Raises:
        ConfigError: there is no such benchmark, or it needs a judge and ``ask_judge`` is None.
        DataError: the completions are not exactly one for each item of the benchmark, or one of
            them is an error, which has to be generated again first.
        EngineError: the judge did not answer every question.
    """
    rule = open_benchmark(benchmark, config)
    by_item = _by_item(completions)
    items = rule.items()
    _check(items, by_item, benchmark, completions)
    answered = [_answered(item, by_item[item.item_id]) for item in items]
    scores = [*_measured(answered), *_scores(benchmark, rule, answered, ask_judge)]
    scores += _unjudged(rule, answered, scores)
    count = write_jsonl(out, scores)
    if isinstance(rule, Totalled):
        # With too many unread verdicts, a total would rest on those that happened to be readable.
        known = not unread(scores).too_many
        totals = [one.model_dump() for one in rule.totals(scores)] if known else []
        write_json(totals_file(out), {"totals": totals})
    return count


def totals_file(scores: Path) -> Path:
    """Return the file beside ``scores`` with the numbers that are not means over items."""
    return scores.with_name(f"{scores.stem}.totals.json")


def _answered(item: Item, completion: Completion) -> AnsweredItem:
    parsed = answer(completion)
    graded = completion.model_copy(update={"response": parsed.text})
    if completion.finish_reason == "filtered":
        return AnsweredItem(item, graded, "filtered", f"filtered: {completion.detail}")
    if parsed.thinking:
        return AnsweredItem(item, graded, "unclassified", "it is nothing but thoughts")
    return AnsweredItem(item, graded)


def _measured(answered: Sequence[AnsweredItem]) -> Iterator[Score]:
    found = measures([one.completion for one in answered])
    for one, of_one in zip(answered, found, strict=True):
        for metric, value in of_one:
            yield _score(one.item, metric, value)


def _unjudged(
    rule: AnyBenchmark, answered: Sequence[AnsweredItem], scores: Sequence[Score]
) -> Iterator[Score]:
    """Yield, for each reason that occurs, a 0 or 1 for every item: the mean is a share of all."""
    reasons: list[UnjudgedReason] = [FILTERED]
    if not isinstance(rule, Unanswered):  # it scores "unclassified" itself
        reasons.append("unclassified")
    for reason in reasons:
        if any(one.unjudged == reason for one in answered):
            scored = {score.item_id for score in scores if score.metric == reason}
            for one in answered:
                if one.item.item_id not in scored:
                    is_so = one.unjudged == reason
                    yield _score(one.item, reason, float(is_so), one.why if is_so else "")


def _scores(
    name: str, rule: AnyBenchmark, answered: Sequence[AnsweredItem], ask_judge: AskJudge | None
) -> Iterator[Score]:
    if isinstance(rule, Unanswered):
        for one in answered:
            if one.unjudged is not None:
                yield from rule.unanswered(one.item, one.unjudged, one.why)
    judged = [one for one in answered if one.unjudged is None]
    if not isinstance(rule, JudgedBenchmark):
        for one in judged:
            yield from rule.score(one.item, one.completion)
        return
    if ask_judge is None:
        raise ConfigError(f"{name} needs {needed_judge(rule)}")
    # All questions in one call, since the engine batches them; the replies keep their order.
    questions = [rule.questions(one.item, one.completion) for one in judged]
    replies = iter(_replies(name, [one for several in questions for one in several], ask_judge))
    for one, requests in zip(judged, questions, strict=True):
        yield from rule.judged(one.item, one.completion, [*islice(replies, len(requests))])


def _score(item: Item, metric: str, value: float, explanation: str = "") -> Score:
    return Score(
        item_id=item.item_id,
        metric=metric,
        value=value,
        explanation=explanation,
        group=item.group,
        cluster=item.cluster,
    )


def _replies(name: str, requests: Sequence[Request], ask_judge: AskJudge) -> list[Completion]:
    replies = list(ask_judge(requests))
    failed = [reply for reply in replies if reply.error is not None]
    if failed:
        raise EngineError(
            f"{name}: the judge gave no reply to {len(failed)} of {len(replies)} questions, the "
            f"first because: {failed[0].error}; the same command asks them again. A judge that "
            "cannot take an answer needs a longer context, or answers with fewer new tokens"
        )
    return replies


def _by_item(completions: Path) -> dict[str, Completion]:
    answers: dict[str, Completion] = {}
    for number, completion in enumerate(read_jsonl(completions, Completion), start=1):
        where = f"{completions}:{number}: item {completion.item_id}"
        if completion.error is not None:
            raise DataError(f"{where} has no answer ({completion.error}); generate it again first")
        if completion.item_id in answers:
            raise DataError(f"{where} is answered twice; remove one answer")
        answers[completion.item_id] = completion
    return answers


def _check(
    items: Sequence[Item], answers: dict[str, Completion], benchmark: str, completions: Path
) -> None:
    """Refuse answers to other prompts than the benchmark's: their scores would mislead."""
    # Prompts are compared too: a later version of a file may keep ids and change prompts.
    for item in items:
        answer = answers.get(item.item_id)
        if answer is None:
            raise DataError(f"{completions}: no answer to item {item.item_id} of {benchmark}")
        if answer.prompt != item.prompt:
            raise DataError(
                f"{completions}: item {item.item_id} has another prompt than in {benchmark}"
            )
    if len(answers) > len(items):
        (other, *_) = answers.keys() - {item.item_id for item in items}
        raise DataError(f"{completions}: {benchmark} has no item {other}")
