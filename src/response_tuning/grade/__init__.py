"""Stage 4: completions become scores, by the rules of a benchmark or by a judge."""

from response_tuning.grade.benchmark import (
    BENCHMARKS,
    AnyBenchmark,
    Benchmark,
    Item,
    JudgedBenchmark,
    open_benchmark,
)
from response_tuning.grade.effect import check_effect, check_metrics
from response_tuning.grade.grading import grade

__all__ = [
    "BENCHMARKS",
    "AnyBenchmark",
    "Benchmark",
    "Item",
    "JudgedBenchmark",
    "check_effect",
    "check_metrics",
    "grade",
    "open_benchmark",
]
