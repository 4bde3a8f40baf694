"""Stage 4: completions become scores, by the rules of a benchmark or by a judge."""

from response_tuning.grade.average import Average
from response_tuning.grade.benchmark import (
    BENCHMARKS,
    AnyBenchmark,
    Benchmark,
    BenchmarkFacts,
    Exporting,
    Item,
    JudgedBenchmark,
    averages,
    displays,
    facts,
    open_benchmark,
    open_lm_eval,
    suites,
)
from response_tuning.grade.effect import (
    check_effect,
    check_metrics,
    files_of,
    lacks_judge,
    needed_judge,
)
from response_tuning.grade.grading import grade, totals_file
from response_tuning.grade.lm_eval.tasks import LmEvalBenchmark, planned_prompts

__all__ = [
    "BENCHMARKS",
    "AnyBenchmark",
    "Average",
    "Benchmark",
    "BenchmarkFacts",
    "Exporting",
    "Item",
    "JudgedBenchmark",
    "LmEvalBenchmark",
    "averages",
    "check_effect",
    "check_metrics",
    "displays",
    "facts",
    "files_of",
    "grade",
    "lacks_judge",
    "needed_judge",
    "open_benchmark",
    "open_lm_eval",
    "planned_prompts",
    "suites",
    "totals_file",
]
