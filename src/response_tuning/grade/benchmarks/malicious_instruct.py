"""MaliciousInstruct: 100 harmful questions of Huang et al. 2023 (arXiv 2310.06987)."""

from response_tuning.configs import GradeConfig
from response_tuning.grade.benchmark import BENCHMARKS
from response_tuning.grade.judges.refusals import RefusalBenchmark, RefusalPrompts, request
from response_tuning.grade.sources import BenchmarkSource, cell, read_source, spread

NAME = "malicious-instruct"
SOURCE = BenchmarkSource(
    benchmark=NAME,
    local="malicious_instruct/MaliciousInstruct.txt",
    hub_id="walledai/MaliciousInstruct",
    column="prompt",
)


def read(config: GradeConfig) -> RefusalPrompts:
    """Read the questions."""
    source = read_source(SOURCE, config)
    items = [
        request(f"{NAME}-{number:03}", cell(row, "prompt"))
        for number, row in enumerate(source.rows)
    ]
    return RefusalPrompts(spread(items, config.limit), source.origin)


BENCHMARKS.register(NAME)(RefusalBenchmark(read))
