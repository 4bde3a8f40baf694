"""What a benchmark is: prompts, and a rule or a judge that scores the answers.

One file in ``grade/benchmarks/``, or in a package of the user's, holds all that is known about one:
the methods of ``Benchmark`` or ``JudgedBenchmark``, and as attributes whatever differs from the
defaults of ``BenchmarkFacts``. What is registered may also have an attribute ``suite``, the name
under which ``rtune eval`` finds it; suites are listed before any benchmark is opened.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from response_tuning.artifacts import Completion, Request, Score, Total
from response_tuning.configs import GradeConfig
from response_tuning.errors import ConfigError
from response_tuning.grade.average import Average
from response_tuning.grade.lm_eval.tasks import LmEvalBenchmark
from response_tuning.metrics import Display
from response_tuning.registry import Registry

AskJudge: TypeAlias = Callable[[Iterable[Request]], Iterator[Completion]]
"""Asks a judge: yields one reply for each request, in the order of the requests."""
OFFLINE = "offline"
"""The judge that is rules alone: it classifies refusals without a model."""
UnjudgedReason: TypeAlias = Literal["filtered", "unclassified"]
"""Why an answer is not judged: a content filter withheld it, or it is nothing but thoughts."""


class Item(Request):
    """A prompt of a benchmark."""

    group: str = ""
    """The part of the benchmark that the item belongs to, such as a task family. Tables show the
    parts; intervals do not depend on them."""
    cluster: str = ""
    """What the item asks about, such as a fact in one of several phrasings. Answers to the items of
    a cluster are not independent, so intervals count clusters. Empty: the item alone."""


class HasItems(Protocol):
    """The prompts of a benchmark."""

    def items(self) -> Sequence[Item]:
        """Return the items, the same at every call; their ids are unique."""
        ...


@runtime_checkable
class Benchmark(HasItems, Protocol):
    """Prompts, and a rule that scores the answers."""

    def score(self, item: Item, completion: Completion) -> Iterator[Score]:
        """Yield the scores of an answer, without metrics that do not apply to the item."""
        ...


@runtime_checkable
class JudgedBenchmark(HasItems, Protocol):
    """Prompts whose answers a model judges."""

    def questions(self, item: Item, completion: Completion) -> Sequence[Request]:
        """Return the questions to the judge about an answer; empty where no judge is needed."""
        ...

    def judged(
        self, item: Item, completion: Completion, replies: Sequence[Completion]
    ) -> Iterator[Score]:
        """Yield the scores of an answer, from the reply to each question about it.

        A reply that cannot be read is scored as unread; its verdict is never guessed.
        """
        ...


@runtime_checkable
class Unanswered(Protocol):
    """A benchmark whose rates include the prompts without an answer."""

    def unanswered(self, item: Item, reason: UnjudgedReason, why: str) -> Iterator[Score]:
        """Yield the scores of an item whose answer nobody can judge."""
        ...


@runtime_checkable
class Totalled(Protocol):
    """A benchmark with numbers that are not means over its items."""

    def totals(self, scores: Sequence[Score]) -> Iterator[Total]:
        """Yield these numbers, from all scores of one file of completions."""
        ...


@runtime_checkable
class Exporting(Protocol):
    """A benchmark whose answers other tools read."""

    def export(self, completions: Sequence[Completion], generator: str) -> Mapping[str, object]:
        """Return the JSON content of each file for other tools, by the file's suffix.

        With ``{"outputs.json": [...]}``, a run writes ``<benchmark>.outputs.json`` beside the
        completions. ``generator`` is the name of the variant that answered.
        """
        ...


class BenchmarkFacts(NamedTuple):
    """What is known about a benchmark without its items; its attributes override the defaults."""

    metrics: tuple[str, ...] = ()
    """All metrics that it may score, without the measures of any answer. Empty: not declared.

    ``kept_*`` stands for every name that begins so, where the items say how it goes on."""
    uncompared: tuple[str, ...] = ()
    """Those of ``metrics`` that are totals: they are shown, and variants not compared by them."""
    headline: tuple[str, ...] = ()
    """See ``Display``."""
    scales: Mapping[str, tuple[float, float]] = MappingProxyType({})
    """See ``Display``."""
    averages: tuple[Average, ...] = ()
    """Means over several benchmarks, this one among them."""
    reads_files: bool = True
    """Whether ``grade.data``, ``grade.paths`` and ``grade.revisions`` have an effect on it."""
    files_of: str = ""
    """The benchmark under whose name the two latter have its files. Empty: its own."""
    has_reference: bool = False
    """Whether ``grade.reference`` and ``grade.difficulties`` have an effect on it."""
    is_judged: bool = False
    """Whether a judge decides its scores even if that judge is ``OFFLINE``."""
    asks_for_digits: bool = False
    """Whether its judge replies with a digit (``grade.judge.settings.digits``), not in words."""

    @property
    def display(self) -> Display:
        """How a report shows it."""
        return Display(self.headline, self.scales)


AnyBenchmark: TypeAlias = Benchmark | JudgedBenchmark

BENCHMARKS: Registry[Callable[[GradeConfig], AnyBenchmark | LmEvalBenchmark]] = Registry(
    "benchmark", package="response_tuning.grade.benchmarks"
)


def open_benchmark(name: str, config: GradeConfig | None = None) -> AnyBenchmark:
    """Return a benchmark with prompts; it reads its files at the first call of ``items``.

    Raises:
        ConfigError: there is no such benchmark, lm-eval measures it without completions, or
            ``config`` lacks a setting that it needs.
    """
    rule = BENCHMARKS.get(name)(config or GradeConfig())
    if isinstance(rule, LmEvalBenchmark):
        raise ConfigError(
            f"{name}: lm-eval measures it on the model itself, so it has no prompts and no "
            "completions; use 'rtune eval' or 'rtune run'"
        )
    return rule


def open_lm_eval(name: str) -> LmEvalBenchmark | None:
    """Return a benchmark that lm-eval measures; None for any other benchmark.

    Raises:
        ConfigError: there is no such benchmark.
    """
    entry = BENCHMARKS.get(name)
    return entry if isinstance(entry, LmEvalBenchmark) else None


def facts(name: str, config: GradeConfig | None = None) -> BenchmarkFacts:
    """Return what is known about a benchmark without its items.

    Raises:
        ConfigError: as ``open_benchmark``.
    """
    rule = BENCHMARKS.get(name)(config or GradeConfig())
    names = BenchmarkFacts._fields
    return BenchmarkFacts(**{key: getattr(rule, key) for key in names if hasattr(rule, key)})


def suites() -> dict[str, tuple[str, ...]]:
    """Return each suite with the names of its benchmarks, both in alphabetical order."""
    members: dict[str, list[str]] = {}
    for name in BENCHMARKS.names():
        if suite := getattr(BENCHMARKS.get(name), "suite", ""):
            members.setdefault(suite, []).append(name)
    return {suite: tuple(members[suite]) for suite in sorted(members)}


def averages(benchmarks: Sequence[str], config: GradeConfig) -> list[Average]:
    """Return the averages of which a run has all benchmarks."""
    every = dict.fromkeys(one for name in benchmarks for one in facts(name, config).averages)
    return [average for average in every if {*average.benchmarks} <= {*benchmarks}]


def displays(benchmarks: Sequence[str], config: GradeConfig) -> dict[str, Display]:
    """Return how a report shows each benchmark of a run, with the averages behind them."""
    shown = {name: facts(name, config).display for name in benchmarks}
    return shown | {one.name: Display(one.headline) for one in averages(benchmarks, config)}
