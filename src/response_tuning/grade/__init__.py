"""Stage 4: completions become scores, by the rules of a benchmark."""

from response_tuning.grade.benchmark import BENCHMARKS, Benchmark, Item
from response_tuning.grade.grading import grade

__all__ = ["BENCHMARKS", "Benchmark", "Item", "grade"]
