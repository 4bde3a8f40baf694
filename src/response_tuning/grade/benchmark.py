"""What a benchmark is: items to ask, and a rule that scores an answer. One file each."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from response_tuning.artifacts import Completion, Request, Score
from response_tuning.registry import Registry


class Item(Request):
    """A request with its place in the benchmark."""

    group: str = ""
    """The part of the benchmark that it belongs to, such as a task family."""


class Benchmark(Protocol):
    """Questions, and how answers to them are judged."""

    def items(self) -> Sequence[Item]:
        """Return the items, the same at every call; ids are unique."""
        ...

    def score(self, item: Item, completion: Completion) -> Iterator[Score]:
        """Yield the scores of an answer; metrics that do not apply to the item are left out."""
        ...


BENCHMARKS: Registry[Benchmark] = Registry("benchmark", package="response_tuning.grade.benchmarks")
