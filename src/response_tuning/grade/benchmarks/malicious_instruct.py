"""MaliciousInstruct: 100 harmful questions of Huang et al. 2023 (arXiv 2310.06987)."""

from response_tuning.configs import GradeConfig
from response_tuning.grade.benchmark import BENCHMARKS, AnyBenchmark
from response_tuning.grade.judges.refusals import Asked, refusal_benchmark, request
from response_tuning.grade.sources import Source, cell, read_source, spread

NAME = "malicious-instruct"
SOURCE = Source(
    benchmark=NAME,
    local="malicious_instruct/MaliciousInstruct.txt",
    hub_id="walledai/MaliciousInstruct",
    column="prompt",
)


@BENCHMARKS.register(NAME)
def malicious_instruct(config: GradeConfig) -> AnyBenchmark:
    """Return the benchmark."""
    return refusal_benchmark(config, read)


def read(config: GradeConfig) -> Asked:
    """Read the questions."""
    found = read_source(SOURCE, config)
    items = [
        request(f"{NAME}-{number:03}", cell(row, "prompt")) for number, row in enumerate(found.rows)
    ]
    return Asked(spread(items, config.limit), found.origin)
