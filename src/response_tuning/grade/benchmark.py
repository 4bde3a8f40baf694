"""What a benchmark is: items to ask, and a rule that scores an answer. One file each."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from response_tuning.artifacts import Completion, Request, Score, Total
from response_tuning.configs import GradeConfig
from response_tuning.registry import Registry

Say: TypeAlias = Callable[[Iterable[Request]], Iterator[Completion]]
"""Asks a judge: one completion for each request, in their order."""


Outcome: TypeAlias = Literal["filtered", "unclassified"]
"""Why an answer is not judged: a filter kept it back, or it is nothing but thoughts."""


class Item(Request):
    """A request with its place in the benchmark."""

    group: str = ""
    """The part of the benchmark that it belongs to, such as a task family."""


class Asked(Protocol):
    """What is asked."""

    def items(self) -> Sequence[Item]:
        """Return the items, the same at every call; ids are unique."""
        ...


@runtime_checkable
class Benchmark(Asked, Protocol):
    """Questions, and a rule that scores the answers."""

    def score(self, item: Item, completion: Completion) -> Iterator[Score]:
        """Yield the scores of an answer; metrics that do not apply to the item are left out."""
        ...


@runtime_checkable
class JudgedBenchmark(Asked, Protocol):
    """Questions whose answers a model judges."""

    def questions(self, item: Item, completion: Completion) -> Sequence[Request]:
        """Return what the judge is asked about an answer; none where no judge is needed."""
        ...

    def judged(
        self, item: Item, completion: Completion, replies: Sequence[Completion]
    ) -> Iterator[Score]:
        """Yield the scores of an answer, from a reply to each question about it.

        A reply that says nothing that can be read is scored as that, and never guessed at.
        """
        ...


@runtime_checkable
class Unanswered(Protocol):
    """A benchmark with rates over all prompts, those without an answer included."""

    def unanswered(self, item: Item, outcome: Outcome, why: str) -> Iterator[Score]:
        """Yield the scores of an item whose answer nobody can judge."""
        ...


@runtime_checkable
class Declaring(Protocol):
    """A benchmark that names its metrics before anything is scored."""

    metrics: tuple[str, ...]
    """All that its items may be scored by, apart from the measures of any answer."""


@runtime_checkable
class Totalled(Protocol):
    """A benchmark with numbers that are no means over its items."""

    def totals(self, scores: Sequence[Score]) -> Iterator[Total]:
        """Yield them, from all scores of one file of completions."""
        ...


AnyBenchmark: TypeAlias = Benchmark | JudgedBenchmark

BENCHMARKS: Registry[Callable[[GradeConfig], AnyBenchmark]] = Registry(
    "benchmark", package="response_tuning.grade.benchmarks"
)


def open_benchmark(name: str, config: GradeConfig | None = None) -> AnyBenchmark:
    """Return a benchmark, which reads its files when it is first asked for its items.

    Raises:
        ConfigError: there is no such benchmark, or ``config`` lacks something that it needs.
    """
    return BENCHMARKS.get(name)(config or GradeConfig())
