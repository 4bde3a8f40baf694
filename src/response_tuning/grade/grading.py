"""Grading one file of completions: every item is scored once, or nothing is written."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from response_tuning.artifacts import Completion, Score, read_jsonl, write_jsonl
from response_tuning.errors import DataError
from response_tuning.grade.benchmark import BENCHMARKS, Benchmark, Item
from response_tuning.grade.general import measures


def grade(benchmark: str, completions: Path, out: Path) -> int:
    """Write the scores of a benchmark's completions, one a line, and return their number.

    Raises:
        ConfigError: there is no such benchmark.
        DataError: the completions are not exactly one for each item of the benchmark, or one of
            them is an error: it has to be asked again first.
    """
    rule = BENCHMARKS.get(benchmark)
    answers = _by_item(completions)
    items = rule.items()
    _check(items, answers, benchmark, completions)
    return write_jsonl(out, _scores(rule, items, answers))


def _scores(
    rule: Benchmark, items: Sequence[Item], answers: dict[str, Completion]
) -> Iterator[Score]:
    for item in items:
        completion = answers[item.item_id]
        for metric, value in measures(completion):
            yield Score(item_id=item.item_id, metric=metric, value=value, group=item.group)
        yield from rule.score(item, completion)


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
